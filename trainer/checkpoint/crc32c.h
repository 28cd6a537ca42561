#pragma once

#include <cstdint>
#include <filesystem>

namespace cosmos::trainer {

/// CRC-32C (Castagnoli), as iSCSI, ext4 and TensorBoard use it. `crc` continues an earlier call.
uint32_t crc32c(const void* data, std::size_t size, uint32_t crc = 0);

/// What the checksum of a part counts for in that of the whole, when `bytes` follow the part. The
/// whole's checksum is the xor of its parts' shares, so that parts are read or written in any
/// order, by any process.
uint32_t crc32c_share(uint32_t crc, uint64_t bytes);

/// The share of bytes [begin, end) in the checksum of a file of `size` bytes. Throws Error when
/// they cannot be read.
uint32_t crc32c_of_range(const std::filesystem::path& path, uint64_t begin, uint64_t end,
                         uint64_t size);

/// Of a whole file. Throws Error when it cannot be read.
uint32_t crc32c_file(const std::filesystem::path& path);

}  // namespace cosmos::trainer
