#include "tools/curate/parquet_file.h"

#include "ops/core/error.h"

#ifdef COSMOS_PARQUET

#include <arrow/api.h>
#include <arrow/io/api.h>
#include <parquet/arrow/writer.h>

#include "modules/hub/atomic_file.h"

namespace cosmos::curate {
namespace {

constexpr int64_t kRowsOfGroup = 1 << 16;

void check(const arrow::Status& status) {
  require(status.ok(), status.ToString());
}

template <typename T>
T take(arrow::Result<T> result) {
  check(result.status());
  return std::move(result).ValueUnsafe();
}

template <typename Builder, typename T>
std::shared_ptr<arrow::Array> array_of(const Column& column) {
  Builder builder;
  for (const Cell& cell : column.cells) {
    const T* value = std::get_if<T>(&cell);
    check(value ? builder.Append(*value) : builder.AppendNull());
  }
  return take(builder.Finish());
}

std::shared_ptr<arrow::Array> vectors_of(const Column& column) {
  const auto width =
      column.cells.empty() ? 0 : std::get<std::vector<float>>(column.cells.front()).size();
  const auto values = std::make_shared<arrow::FloatBuilder>();
  arrow::FixedSizeListBuilder builder(arrow::default_memory_pool(), values,
                                      static_cast<int32_t>(width));
  for (const Cell& cell : column.cells) {
    const auto& vector = std::get<std::vector<float>>(cell);
    require(vector.size() == width, column.name, ": expected ", width, " numbers in each, got ",
            vector.size());
    check(builder.Append());
    check(values->AppendValues(vector));
  }
  return take(builder.Finish());
}

std::shared_ptr<arrow::Array> array(const Column& column) {
  switch (column.kind) {
    case Kind::kText:
      return array_of<arrow::StringBuilder, std::string>(column);
    case Kind::kInteger:
      return array_of<arrow::Int64Builder, int64_t>(column);
    case Kind::kReal:
      return array_of<arrow::DoubleBuilder, double>(column);
    case Kind::kFlag:
      return array_of<arrow::BooleanBuilder, bool>(column);
    case Kind::kVector:
      return vectors_of(column);
  }
  fail(column.name, ": unknown kind of column");
}

std::shared_ptr<arrow::Buffer> file_of(const std::vector<Column>& columns) {
  arrow::FieldVector fields;
  arrow::ArrayVector arrays;
  for (const Column& column : columns) {
    arrays.push_back(array(column));
    fields.push_back(arrow::field(column.name, arrays.back()->type()));
  }
  const auto table = arrow::Table::Make(arrow::schema(fields), arrays);
  const auto out = take(arrow::io::BufferOutputStream::Create());
  const auto properties =
      parquet::WriterProperties::Builder().compression(parquet::Compression::SNAPPY)->build();
  check(parquet::arrow::WriteTable(*table, arrow::default_memory_pool(), out, kRowsOfGroup,
                                   properties));
  return take(out->Finish());
}

}  // namespace

bool parquet_available() {
  return true;
}

void write_parquet(const std::filesystem::path& path, const std::vector<Column>& columns) {
  try {
    const auto bytes = file_of(columns);
    modules::write_file(path, {reinterpret_cast<const char*>(bytes->data()),
                               static_cast<std::size_t>(bytes->size())});
  } catch (const parquet::ParquetException& error) {
    fail(path.string(), ": ", error.what());
  }
}

}  // namespace cosmos::curate

#else

namespace cosmos::curate {

bool parquet_available() {
  return false;
}

void write_parquet(const std::filesystem::path& path, const std::vector<Column>&) {
  fail(path.string(), ": this build has no Arrow (tools/setup.sh fetches it)");
}

}  // namespace cosmos::curate

#endif
