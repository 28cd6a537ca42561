#pragma once

// Names that follow from content.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace cosmos::curate {

/// SHA-256 of a file's bytes in hex. Throws Error when it cannot be read.
std::string file_sha256(const std::filesystem::path& path);

/// UUID version 5 (RFC 9562: SHA-1) of `name` in the URL namespace.
std::string uuid5(std::string_view name);

/// Another one each time: host, process, random digits.
std::string unique_name();

/// uuid5("{sha256}_{begin}_{end}"), microseconds: the same part of the same bytes has one id,
/// wherever the file lies.
std::string clip_id(const std::string& sha256, int64_t begin_us, int64_t end_us);

}  // namespace cosmos::curate
