#pragma once

// Parquet files, through Arrow. No header of torch here or in the .cpp: Arrow's are beside them.

#include <cstdint>
#include <filesystem>
#include <string>
#include <variant>
#include <vector>

namespace cosmos::curate {

enum class Kind { kText, kInteger, kReal, kFlag, kVector };

/// Of the column's kind, or nothing: null.
using Cell = std::variant<std::monostate, std::string, int64_t, double, bool, std::vector<float>>;

struct Column {
  std::string name;
  Kind kind;
  std::vector<Cell> cells{};
};

/// Whether this build has Arrow.
bool parquet_available();

/// Writes columns of equal length (text: UTF-8; vectors: of one length, never null) as one file,
/// compressed with Snappy; the same columns give the same bytes. Throws Error naming the file, and
/// where the build has no Arrow.
void write_parquet(const std::filesystem::path& path, const std::vector<Column>& columns);

}  // namespace cosmos::curate
