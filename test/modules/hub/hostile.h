#pragma once

// Raw safetensors files, well formed or not.

#include <cstring>
#include <string>

#include "modules/hub/atomic_file.h"
#include "test/support/errors.h"
#include "test/support/temp_folder.h"

namespace cosmos::test {

/// length + header + data, with a length of one's own choice.
inline std::string raw_file(const std::string& header, const std::string& data,
                            uint64_t header_bytes) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &header_bytes, 8);
  return bytes + header + data;
}

inline std::string raw_file(const std::string& header, const std::string& data) {
  return raw_file(header, data, header.size());
}

}  // namespace cosmos::test
