#pragma once

// Parquet files read back, without Arrow's headers.

#include <map>
#include <string>
#include <vector>

namespace cosmos::test {

/// Each column's values as Arrow prints them ("null", "[0.5,1]"), by the column's name.
std::map<std::string, std::vector<std::string>> parquet_rows(const std::string& path);

}  // namespace cosmos::test
