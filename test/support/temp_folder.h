#pragma once

// Folders for test cases, removed at the end.

#include <atomic>
#include <filesystem>
#include <string>
#include <unistd.h>

namespace cosmos::test {

/// Where memory serves as a disk, for tests that write thousands of files.
inline std::filesystem::path memory_folder() {
  std::error_code ignored;
  const bool shm =
      std::filesystem::is_directory("/dev/shm", ignored) && ::access("/dev/shm", W_OK) == 0;
  return shm ? "/dev/shm" : std::filesystem::temp_directory_path();
}

/// A folder of its own.
class TempFolder {
 public:
  explicit TempFolder(
      const std::filesystem::path& parent = std::filesystem::temp_directory_path()) {
    static std::atomic<int> counter{0};
    path_ =
        parent / ("cosmos-test-" + std::to_string(::getpid()) + "-" + std::to_string(counter++));
    std::filesystem::create_directories(path_);
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace cosmos::test
