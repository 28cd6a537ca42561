#include <sqlite3.h>

#include "ops/core/error.h"
#include "tools/curate/database.h"

namespace cosmos::curate {
namespace {

constexpr Dialect kDialect = {
    .bytes = "BLOB",
    .begin = "BEGIN IMMEDIATE",
    .now_ms = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    .skip_locked = "",
    .lock_row = "",
    .path_key = "path"};

class Sqlite : public Database {
 public:
  explicit Sqlite(const std::filesystem::path& path) : name_(path.string()) {
    if (sqlite3_open(path.c_str(), &db_) != SQLITE_OK) {
      const std::string reason = db_ ? sqlite3_errmsg(db_) : "no memory";
      sqlite3_close(db_);
      fail(name_, ": cannot be opened: ", reason);
    }
    try {
      sqlite3_busy_timeout(db_, 1000);
      for (const char* pragma : {"PRAGMA locking_mode = EXCLUSIVE", "PRAGMA journal_mode = WAL",
                                 "PRAGMA synchronous = NORMAL"})
        query(pragma, {});
    } catch (...) {
      sqlite3_close(db_);
      throw;
    }
  }
  ~Sqlite() override { sqlite3_close(db_); }
  Sqlite(const Sqlite&) = delete;
  Sqlite& operator=(const Sqlite&) = delete;

  const Dialect& dialect() const override { return kDialect; }
  bool shared() const override { return false; }
  std::string name() const override { return name_; }
  void exclude_others() override {}  // the file is locked
  bool try_lock() override { return true; }
  void unlock() override {}

  std::vector<Row> query(const std::string& sql, const std::vector<Value>& values) override {
    sqlite3_stmt* prepared = nullptr;
    if (sqlite3_prepare_v2(db_, sql.c_str(), -1, &prepared, nullptr) != SQLITE_OK) fail_sql();
    const std::unique_ptr<sqlite3_stmt, decltype(&sqlite3_finalize)> statement(prepared,
                                                                               sqlite3_finalize);
    for (std::size_t i = 0; i < values.size(); ++i)
      bind(prepared, static_cast<int>(i) + 1, values[i]);
    std::vector<Row> rows;
    int code = SQLITE_ROW;
    while ((code = sqlite3_step(prepared)) == SQLITE_ROW) {
      Row& row = rows.emplace_back();
      for (int column = 0; column < sqlite3_column_count(prepared); ++column) {
        const void* bytes = sqlite3_column_blob(prepared, column);
        const int size = sqlite3_column_bytes(prepared, column);
        row.emplace_back(bytes ? static_cast<const char*>(bytes) : "",
                         static_cast<std::size_t>(bytes ? size : 0));
      }
    }
    if (code != SQLITE_DONE) fail_sql();
    return rows;
  }

 private:
  static void bind(sqlite3_stmt* statement, int place, const Value& value) {
    const auto size = [](const std::string& text) { return static_cast<int>(text.size()); };
    if (const auto* n = std::get_if<int64_t>(&value))
      sqlite3_bind_int64(statement, place, *n);
    else if (const auto* text = std::get_if<std::string>(&value))
      sqlite3_bind_text(statement, place, text->data(), size(*text), SQLITE_STATIC);
    else if (const auto* bytes = std::get_if<Bytes>(&value))
      sqlite3_bind_blob(statement, place, bytes->value.data(), size(bytes->value), SQLITE_STATIC);
  }

  [[noreturn]] void fail_sql() const {
    const bool busy = sqlite3_errcode(db_) == SQLITE_BUSY;
    fail(name_, ": ", sqlite3_errmsg(db_),
         busy ? " (is another cosmos-curate at work on this folder? Several need a store of "
                "postgresql://)"
              : "");
  }

  std::string name_;
  sqlite3* db_ = nullptr;
};

}  // namespace

int64_t number(const Row& row, std::size_t column) {
  return std::stoll(row.at(column));
}

std::unique_ptr<Database> open_sqlite(const std::filesystem::path& path) {
  return std::make_unique<Sqlite>(path);
}

}  // namespace cosmos::curate
