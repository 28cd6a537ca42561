#pragma once

// What the store is kept in: SQL that both kinds understand, and the words in which they differ.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <variant>
#include <vector>

namespace cosmos::curate {

/// What is not text: paths, vectors, what a model said.
struct Bytes {
  std::string value;
};

/// Bound to $1, $2 ... of a statement.
using Value = std::variant<int64_t, std::string, Bytes>;

/// Columns of a row; numbers as their digits, NULL as "".
using Row = std::vector<std::string>;

int64_t number(const Row& row, std::size_t column);

struct Dialect {
  const char* bytes;        ///< the type of Bytes
  const char* begin;        ///< of a transaction that will write
  const char* now_ms;       ///< milliseconds since 1970 of the database's own clock
  const char* skip_locked;  ///< after SELECT: takes the row, passes over what others are taking
  const char* lock_row;     ///< after SELECT: nobody else changes the row until the end
  const char* path_key;     ///< what is unique of a path
};

/// One connection, for one thread at a time. Every failure throws Error naming the database.
class Database {
 public:
  virtual ~Database() = default;
  virtual const Dialect& dialect() const = 0;
  /// Whether other processes may be at work in it.
  virtual bool shared() const = 0;
  /// How messages call it: no password.
  virtual std::string name() const = 0;
  /// Rows of one statement. In it $1 stands before $2, $2 before $3 ...
  virtual std::vector<Row> query(const std::string& sql, const std::vector<Value>& values = {}) = 0;
  /// Within a transaction: until its end no other is in such a part.
  virtual void exclude_others() = 0;
  /// One process at a time holds it, until unlock() or its death. False: another does.
  virtual bool try_lock() = 0;
  virtual void unlock() = 0;
};

/// Opens or makes the file, for this process alone.
std::unique_ptr<Database> open_sqlite(const std::filesystem::path& path);

/// Connects to "postgresql://...". Throws Error in a build without PostgreSQL.
std::unique_ptr<Database> open_postgres(const std::string& url);

}  // namespace cosmos::curate
