#pragma once

// Files that an index names: the index is untrusted and must not lead out of its folder.

#include <filesystem>
#include <string>

namespace cosmos::modules {

/// `dir`/`name`, `name` being a plain name of a regular file that lies in `dir` or, through a link,
/// in the blobs folder of the same Hugging Face cache. Throws Error otherwise; `where` names the
/// index in it.
std::filesystem::path folder_member(const std::filesystem::path& dir, const std::string& name,
                                    const std::string& where);

}  // namespace cosmos::modules
