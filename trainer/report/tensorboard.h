#pragma once

// TensorBoard's event file: length-prefixed, checksummed protobuf records (TFRecord), of which only
// scalars are needed here.

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace cosmos::trainer {

struct Scalar {
  std::string tag;
  float value;
};

class EventFile {
 public:
  /// Opens a new events file in `dir` (created). `step` > 0 tells TensorBoard to drop what an
  /// earlier, interrupted process wrote after that step.
  EventFile(const std::filesystem::path& dir, int64_t step);

  /// Appends one event. False when the disk refused it.
  bool write(int64_t step, const std::vector<Scalar>& scalars);

 private:
  void write_record(const std::string& event);

  std::ofstream file_;
};

}  // namespace cosmos::trainer
