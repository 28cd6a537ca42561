#ifdef COSMOS_PARQUET

#include "test/tools/parquet_rows.h"

#include <arrow/api.h>
#include <arrow/io/api.h>
#include <parquet/arrow/reader.h>

namespace cosmos::test {

std::map<std::string, std::vector<std::string>> parquet_rows(const std::string& path) {
  const auto file = arrow::io::ReadableFile::Open(path).ValueOrDie();
  const auto reader = parquet::arrow::OpenFile(file, arrow::default_memory_pool()).ValueOrDie();
  const std::shared_ptr<arrow::Table> table = reader->ReadTable().ValueOrDie();
  std::map<std::string, std::vector<std::string>> rows;
  for (int column = 0; column < table->num_columns(); ++column) {
    auto& values = rows[table->field(column)->name()];
    for (int64_t row = 0; row < table->num_rows(); ++row)
      values.push_back(table->column(column)->GetScalar(row).ValueOrDie()->ToString());
  }
  return rows;
}

}  // namespace cosmos::test

#endif  // COSMOS_PARQUET
