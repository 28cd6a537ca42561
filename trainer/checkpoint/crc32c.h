#pragma once

#include <cstdint>
#include <filesystem>

namespace cosmos::trainer {

/// CRC-32C (Castagnoli), as iSCSI, ext4 and TensorBoard use it. `crc` continues an earlier call.
uint32_t crc32c(const void* data, std::size_t size, uint32_t crc = 0);

/// Of a whole file. Throws Error when it cannot be read.
uint32_t crc32c_file(const std::filesystem::path& path);

}  // namespace cosmos::trainer
