#include "modules/hub/folder_member.h"

#include "modules/hub/atomic_file.h"
#include "ops/core/error.h"

namespace cosmos::modules {
namespace {

namespace fs = std::filesystem;

bool lies_in(const fs::path& path, const fs::path& folder) {
  const fs::path relative = path.lexically_relative(folder);
  return !relative.empty() && *relative.begin() != "..";
}

// models--x/snapshots/REV/transformer -> models--x/blobs, where the Hugging Face cache keeps the
// files that its snapshots link to; empty for any other folder.
fs::path cache_blobs(const fs::path& dir) {
  for (fs::path p = dir; p.has_relative_path(); p = p.parent_path())
    if (p.filename() == "snapshots") return p.parent_path() / "blobs";
  return {};
}

}  // namespace

fs::path folder_member(const fs::path& dir, const std::string& name, const std::string& where) {
  const bool plain = !name.empty() && name != "." && name != ".." &&
                     name.find_first_of("/\\") == std::string::npos &&
                     name.find('\0') == std::string::npos;
  require(plain, where, ": \"", printable(name),
          "\" is not a plain file name; a shard lies beside its ", "index");
  const fs::path path = dir / name;
  std::error_code error;
  require(fs::is_regular_file(path, error), where, ": shard ", printable(name),
          " is missing (download incomplete?)");
  const fs::path real = fs::canonical(path, error);
  require(!error, path.string(), ": ", error.message());
  const fs::path home = fs::canonical(dir, error);
  require(!error, dir.string(), ": ", error.message());
  const fs::path blobs = cache_blobs(home);
  require(lies_in(real, home) || (!blobs.empty() && lies_in(real, blobs)), where, ": shard ",
          printable(name), " is a link that leads out of the folder");
  return path;
}

}  // namespace cosmos::modules
