#include "ops/core/error.h"
#include "tools/curate/database.h"

#ifdef COSMOS_POSTGRES

#include <algorithm>
#include <libpq-fe.h>

namespace cosmos::curate {
namespace {

constexpr Oid kByteaType = 17, kBigintType = 20, kTextType = 25;
// Advisory locks are numbers that mean what their users say: one for parts of transactions, one
// for what a process does alone.
constexpr const char* kPartLock = "SELECT pg_advisory_xact_lock(20261130, 1)";
constexpr const char* kLock = "SELECT pg_try_advisory_lock(20261130, 2)";
constexpr const char* kUnlock = "SELECT pg_advisory_unlock(20261130, 2)";

constexpr Dialect kDialect = {
    .bytes = "BYTEA",
    .begin = "BEGIN",
    .now_ms = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
    .skip_locked = " FOR UPDATE SKIP LOCKED",
    .lock_row = " FOR UPDATE",
    .path_key = "sha256(path)"};  // an index entry holds 2.7 kB, a path 4 kB

using Result = std::unique_ptr<PGresult, decltype(&PQclear)>;

/// What is sent of a value: text, bytes as they are.
struct Parameters {
  explicit Parameters(const std::vector<Value>& values) : texts(values.size()) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto* n = std::get_if<int64_t>(&values[i]);
      const auto* bytes = std::get_if<Bytes>(&values[i]);
      texts[i] = n ? std::to_string(*n) : bytes ? bytes->value : std::get<std::string>(values[i]);
      types.push_back(n ? kBigintType : bytes ? kByteaType : kTextType);
      formats.push_back(bytes ? 1 : 0);
      starts.push_back(texts[i].c_str());
      sizes.push_back(static_cast<int>(texts[i].size()));
    }
  }
  std::vector<std::string> texts;
  std::vector<Oid> types;
  std::vector<int> formats, sizes;
  std::vector<const char*> starts;
};

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

class Postgres : public Database {
 public:
  explicit Postgres(const std::string& url) : connection_(PQconnectdb(url.c_str()), PQfinish) {
    require(connection_ && PQstatus(connection_.get()) == CONNECTION_OK, "store: cannot connect: ",
            connection_ ? one_line(PQerrorMessage(connection_.get())) : "no memory",
            " (expected postgresql://USER@HOST/DATABASE of a server that runs)");
    PQsetClientEncoding(connection_.get(), "UTF8");
    PQsetNoticeProcessor(
        connection_.get(), [](void*, const char*) {}, nullptr);
    const char* host = PQhost(connection_.get());
    name_ = std::string("postgresql://") + (host ? host : "") + "/" + PQdb(connection_.get());
    const int version = PQserverVersion(connection_.get());
    require(version >= 110000, name_, ": expected PostgreSQL 11 or newer, got ", version / 10000);
  }

  const Dialect& dialect() const override { return kDialect; }
  bool shared() const override { return true; }
  std::string name() const override { return name_; }
  void exclude_others() override { query(kPartLock, {}); }
  bool try_lock() override { return query(kLock, {}).at(0).at(0) == "t"; }
  void unlock() override { query(kUnlock, {}); }

  std::vector<Row> query(const std::string& sql, const std::vector<Value>& values) override {
    const Parameters p(values);
    const Result result(
        PQexecParams(connection_.get(), sql.c_str(), static_cast<int>(values.size()),
                     p.types.data(), p.starts.data(), p.sizes.data(), p.formats.data(), 0),
        PQclear);
    const ExecStatusType status = PQresultStatus(result.get());
    require(status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK, name_, ": ",
            one_line(PQerrorMessage(connection_.get())));
    std::vector<Row> rows(static_cast<std::size_t>(PQntuples(result.get())));
    for (std::size_t i = 0; i < rows.size(); ++i)
      for (int column = 0; column < PQnfields(result.get()); ++column)
        rows[i].push_back(cell(result.get(), static_cast<int>(i), column));
    return rows;
  }

 private:
  static std::string cell(const PGresult* result, int row, int column) {
    const char* text = PQgetvalue(result, row, column);
    if (PQftype(result, column) != kByteaType)
      return {text, static_cast<std::size_t>(PQgetlength(result, row, column))};
    std::size_t size = 0;
    const std::unique_ptr<unsigned char, decltype(&PQfreemem)> bytes(
        PQunescapeBytea(reinterpret_cast<const unsigned char*>(text), &size), PQfreemem);
    return {reinterpret_cast<const char*>(bytes.get()), size};
  }

  std::unique_ptr<PGconn, decltype(&PQfinish)> connection_;
  std::string name_;
};

}  // namespace

std::unique_ptr<Database> open_postgres(const std::string& url) {
  return std::make_unique<Postgres>(url);
}

}  // namespace cosmos::curate

#else

namespace cosmos::curate {

std::unique_ptr<Database> open_postgres(const std::string&) {
  fail("store: this build has no PostgreSQL (package libpq-dev, then configure again)");
}

}  // namespace cosmos::curate

#endif
