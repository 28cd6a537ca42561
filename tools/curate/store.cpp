#include "tools/curate/store.h"

#include <sqlite3.h>
#include <sstream>

namespace cosmos::curate {
namespace {

// Paths are bytes, not text: BLOBs. Ids of sources ascend in order of listing.
constexpr const char* kSchema = R"sql(
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS settings (text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sources (
  id INTEGER PRIMARY KEY, path BLOB UNIQUE NOT NULL, stage TEXT NOT NULL, reason BLOB NOT NULL,
  sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, duration_us INTEGER NOT NULL, info TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS segments (
  source INTEGER NOT NULL, first INTEGER NOT NULL, end INTEGER NOT NULL,
  begin_us INTEGER NOT NULL, end_us INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
  id TEXT PRIMARY KEY, scores TEXT NOT NULL, hashes TEXT NOT NULL, file TEXT NOT NULL,
  copied INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS embeddings (id TEXT PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS captions (id TEXT PRIMARY KEY, text TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS segments_of ON segments (source, first);
)sql";

std::string join_hashes(const std::vector<uint64_t>& hashes) {
  std::ostringstream text;
  for (const uint64_t hash : hashes) text << std::hex << hash << ' ';
  return text.str();
}

std::vector<uint64_t> split_hashes(const std::string& text) {
  std::istringstream in(text);
  std::vector<uint64_t> hashes;
  for (uint64_t hash; in >> std::hex >> hash;) hashes.push_back(hash);
  return hashes;
}

}  // namespace

/// A prepared statement: values in by order, rows out by column.
class Store::Statement {
 public:
  Statement(Store& store, const std::string& sql) : store_(store) {
    if (sqlite3_prepare_v2(store.db_, sql.c_str(), -1, &statement_, nullptr) != SQLITE_OK)
      store.fail_sql("prepare");
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& add(int64_t value) {
    sqlite3_bind_int64(statement_, ++bound_, value);
    return *this;
  }
  Statement& add(const std::string& value) {
    sqlite3_bind_text(statement_, ++bound_, value.data(), static_cast<int>(value.size()),
                      SQLITE_TRANSIENT);
    return *this;
  }
  Statement& add_bytes(const std::string& value) {
    sqlite3_bind_blob(statement_, ++bound_, value.data(), static_cast<int>(value.size()),
                      SQLITE_TRANSIENT);
    return *this;
  }
  /// Next row; false after the last.
  bool step() {
    const int code = sqlite3_step(statement_);
    if (code != SQLITE_ROW && code != SQLITE_DONE) store_.fail_sql("step");
    return code == SQLITE_ROW;
  }
  int64_t number(int column) const { return sqlite3_column_int64(statement_, column); }
  std::string text(int column) const {
    const void* bytes = sqlite3_column_blob(statement_, column);
    const int size = sqlite3_column_bytes(statement_, column);
    return bytes ? std::string(static_cast<const char*>(bytes), static_cast<std::size_t>(size))
                 : std::string();
  }

 private:
  Store& store_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
};

Store::Store(const std::filesystem::path& path, const std::string& settings)
    : name_(path.string()) {
  if (sqlite3_open(path.c_str(), &db_) != SQLITE_OK) {
    const std::string reason = db_ ? sqlite3_errmsg(db_) : "no memory";
    sqlite3_close(db_);
    fail(name_, ": cannot be opened: ", reason);
  }
  try {
    sqlite3_busy_timeout(db_, 1000);
    execute("PRAGMA locking_mode = EXCLUSIVE");
    execute(kSchema);
    check_settings(settings);
  } catch (...) {
    sqlite3_close(db_);
    throw;
  }
}

Store::~Store() {
  sqlite3_close(db_);
}

void Store::fail_sql(const std::string& what) const {
  const bool busy = sqlite3_errcode(db_) == SQLITE_BUSY;
  fail(name_, ": ", what, ": ", sqlite3_errmsg(db_),
       busy ? " (is another cosmos-curate at work on this folder?)" : "");
}

void Store::execute(const std::string& sql) {
  if (sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) fail_sql("execute");
}

void Store::transaction(const std::function<void()>& body) {
  const std::lock_guard lock(mutex_);
  execute("BEGIN IMMEDIATE");
  try {
    body();
    execute("COMMIT");
  } catch (...) {
    sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
    throw;
  }
}

void Store::check_settings(const std::string& settings) {
  transaction([&] {
    Statement read(*this, "SELECT text FROM settings");
    if (!read.step()) {
      Statement(*this, "INSERT INTO settings VALUES (?)").add(settings).step();
      return;
    }
    require(read.text(0) == settings, name_,
            ": this folder was begun with other settings: ", read.text(0), ", now ", settings,
            " (choose another output folder)");
  });
}

void Store::list(const std::vector<std::pair<std::string, std::string>>& paths_and_reasons) {
  transaction([&] {
    for (const auto& [path, reason] : paths_and_reasons)
      Statement(*this,
                "INSERT OR IGNORE INTO sources (path, stage, reason, sha256, bytes, duration_us, "
                "info) VALUES (?, ?, ?, '', 0, 0, '{}')")
          .add_bytes(path)
          .add(std::string(reason.empty() ? "listed" : "failed"))
          .add_bytes(reason)
          .step();
  });
}

std::vector<Source> Store::sources(const std::string& stage) {
  const std::lock_guard lock(mutex_);
  Statement read(*this,
                 "SELECT id, path, stage, reason, sha256, bytes, duration_us, info FROM sources "
                 "WHERE ?1 = '' OR stage = ?1 ORDER BY id");
  read.add(stage);
  std::vector<Source> sources;
  while (read.step())
    sources.push_back({.id = read.number(0),
                       .path = read.text(1),
                       .stage = read.text(2),
                       .reason = read.text(3),
                       .sha256 = read.text(4),
                       .bytes = read.number(5),
                       .duration_us = read.number(6),
                       .info = Json::parse(read.text(7))});
  return sources;
}

void Store::save(const Source& source) {
  transaction([&] {
    Statement(*this,
              "UPDATE sources SET stage = ?, reason = ?, sha256 = ?, bytes = ?, duration_us = ?, "
              "info = ? WHERE id = ?")
        .add(source.stage)
        .add_bytes(source.reason)
        .add(source.sha256)
        .add(source.bytes)
        .add(source.duration_us)
        .add(source.info.dump())
        .add(source.id)
        .step();
  });
}

void Store::fail_source(int64_t id, const std::string& reason) {
  transaction([&] {
    Statement(*this, "UPDATE sources SET stage = 'failed', reason = ? WHERE id = ?")
        .add_bytes(reason)
        .add(id)
        .step();
  });
}

void Store::mark_duplicates() {
  transaction([&] {
    execute(
        "UPDATE sources SET stage = 'duplicate', reason = (SELECT path FROM sources AS o WHERE "
        "o.sha256 = sources.sha256 AND o.stage IN ('probed', 'analysed') ORDER BY o.id LIMIT 1) "
        "WHERE stage = 'probed' AND EXISTS (SELECT 1 FROM sources AS o WHERE o.sha256 = "
        "sources.sha256 AND o.stage IN ('probed', 'analysed') AND o.id < sources.id)");
  });
}

void Store::save_segments(const Video& video) {
  transaction([&] {
    for (const Segment& s : video.segments)
      Statement(*this, "INSERT OR IGNORE INTO segments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
          .add(video.id)
          .add(s.first)
          .add(s.end)
          .add(s.begin_us)
          .add(s.end_us)
          .add(state_name(s.state))
          .add(s.reason)
          .add(s.id)
          .add(s.scores.dump())
          .add(join_hashes(s.hashes))
          .add(s.file)
          .add(int64_t{s.copied})
          .step();
    Statement(*this, "UPDATE sources SET stage = 'analysed', reason = ? WHERE id = ?")
        .add_bytes(video.damage)
        .add(video.id)
        .step();
  });
}

std::vector<Segment> Store::segments(int64_t source) {
  const std::lock_guard lock(mutex_);
  Statement read(*this,
                 "SELECT first, end, begin_us, end_us, state, reason, id, scores, hashes, file, "
                 "copied FROM segments WHERE source = ? ORDER BY first");
  read.add(source);
  std::vector<Segment> segments;
  while (read.step())
    segments.push_back({.first = read.number(0),
                        .end = read.number(1),
                        .begin_us = read.number(2),
                        .end_us = read.number(3),
                        .state = parse_state(read.text(4)),
                        .reason = read.text(5),
                        .id = read.text(6),
                        .scores = Json::parse(read.text(7)),
                        .hashes = split_hashes(read.text(8)),
                        .file = read.text(9),
                        .copied = read.number(10) != 0});
  return segments;
}

void Store::save_embedding(const std::string& clip, const std::vector<float>& vector) {
  const std::string bytes(reinterpret_cast<const char*>(vector.data()),
                          vector.size() * sizeof(float));
  transaction([&] {
    Statement(*this, "INSERT OR REPLACE INTO embeddings VALUES (?, ?)")
        .add(clip)
        .add_bytes(bytes)
        .step();
  });
}

bool Store::has_embedding(const std::string& clip) {
  const std::lock_guard lock(mutex_);
  Statement read(*this, "SELECT 1 FROM embeddings WHERE id = ?");
  return read.add(clip).step();
}

std::vector<float> Store::embedding(const std::string& clip) {
  const std::lock_guard lock(mutex_);
  Statement read(*this, "SELECT vector FROM embeddings WHERE id = ?");
  require(read.add(clip).step(), name_, ": clip ", clip, " has no embedding");
  const std::string bytes = read.text(0);
  std::vector<float> vector(bytes.size() / sizeof(float));
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(vector.data()));
  return vector;
}

void Store::save_caption(const std::string& clip, const std::string& text) {
  transaction([&] {
    Statement(*this, "INSERT OR REPLACE INTO captions VALUES (?, ?)").add(clip).add(text).step();
  });
}

std::optional<std::string> Store::caption(const std::string& clip) {
  const std::lock_guard lock(mutex_);
  Statement read(*this, "SELECT text FROM captions WHERE id = ?");
  return read.add(clip).step() ? std::optional(read.text(0)) : std::nullopt;
}

void Store::update_segments(const std::vector<Segment>& segments) {
  transaction([&] {
    for (const Segment& s : segments)
      Statement(*this,
                "UPDATE segments SET state = ?, reason = ?, file = ?, copied = ? WHERE id = ?")
          .add(state_name(s.state))
          .add(s.reason)
          .add(s.file)
          .add(int64_t{s.copied})
          .add(s.id)
          .step();
  });
}

}  // namespace cosmos::curate
