#include "tools/curate/store.h"

#include <sstream>

#include "tools/curate/ids.h"

namespace cosmos::curate {
namespace {

// Paths are bytes, not text. Ids of sources ascend in order of listing. BYTES and PATH_KEY are the
// dialect's.
constexpr const char* kSchema[] = {
    "CREATE TABLE IF NOT EXISTS settings (text TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS sources (id BIGINT PRIMARY KEY, path BYTES NOT NULL, stage TEXT "
    "NOT NULL, reason BYTES NOT NULL, sha256 TEXT NOT NULL, bytes BIGINT NOT NULL, duration_us "
    "BIGINT NOT NULL, info TEXT NOT NULL, owner TEXT NOT NULL DEFAULT '', lease_ms BIGINT NOT NULL "
    "DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS segments (source BIGINT NOT NULL, first BIGINT NOT NULL, \"end\" "
    "BIGINT NOT NULL, begin_us BIGINT NOT NULL, end_us BIGINT NOT NULL, state TEXT NOT NULL, "
    "reason TEXT NOT NULL, id TEXT PRIMARY KEY, scores TEXT NOT NULL, hashes TEXT NOT NULL, file "
    "TEXT NOT NULL, copied BIGINT NOT NULL, detail BYTES NOT NULL DEFAULT '')",
    "CREATE TABLE IF NOT EXISTS embeddings (id TEXT PRIMARY KEY, vector BYTES NOT NULL)",
    "CREATE TABLE IF NOT EXISTS captions (id TEXT PRIMARY KEY, text BYTES NOT NULL)",
    "CREATE TABLE IF NOT EXISTS made (kind TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (kind, "
    "id))",
    "CREATE TABLE IF NOT EXISTS progress (name TEXT PRIMARY KEY, listing BIGINT NOT NULL)",
    "CREATE UNIQUE INDEX IF NOT EXISTS source_paths ON sources (PATH_KEY)",
    "CREATE INDEX IF NOT EXISTS sources_at ON sources (stage, id)",
    "CREATE INDEX IF NOT EXISTS sources_like ON sources (sha256)",
    "CREATE INDEX IF NOT EXISTS segments_of ON segments (source, first)"};

void replace(std::string& text, const std::string& word, const std::string& by) {
  for (std::size_t at; (at = text.find(word)) != std::string::npos;)
    text.replace(at, word.size(), by);
}

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

constexpr const char* kSourceColumns = "id, path, stage, reason, sha256, bytes, duration_us, info";

Source source_of(const Row& row) {
  return {.id = number(row, 0),
          .path = row[1],
          .stage = row[2],
          .reason = row[3],
          .sha256 = row[4],
          .bytes = number(row, 5),
          .duration_us = number(row, 6),
          .info = Json::parse(row[7])};
}

// What a video needs the work for. `s` is its row.
std::string condition(Work work) {
  const auto clip_without = [](const std::string& what) {
    return "s.stage = 'analysed' AND EXISTS (SELECT 1 FROM segments AS g WHERE g.source = s.id AND "
           "g.state = 'kept' AND " +
           what + ")";
  };
  const auto not_made = [&](const std::string& kind) {
    return clip_without("NOT EXISTS (SELECT 1 FROM made AS m WHERE m.id = g.id AND m.kind = '" +
                        kind + "')");
  };
  switch (work) {
    case Work::kProbe:
      return "s.stage = 'listed'";
    case Work::kAnalyse:
      return "s.stage = 'probed'";
    case Work::kText:
      return clip_without("g.scores NOT LIKE '%\"text\":%'");
    case Work::kAesthetic:
      return clip_without("g.scores NOT LIKE '%\"aesthetic\":%'");
    case Work::kEmbed:
      return clip_without("NOT EXISTS (SELECT 1 FROM embeddings AS e WHERE e.id = g.id)");
    case Work::kWrite:
      return clip_without("g.file = ''");
    case Work::kCaption:
      return clip_without("NOT EXISTS (SELECT 1 FROM captions AS c WHERE c.id = g.id)");
    case Work::kLatents:
      return not_made("latents");
    case Work::kTextEmbeds:
      return not_made("text_embeds");
  }
  fail("unknown work");
}

}  // namespace

Store::Store(std::unique_ptr<Database> database, const std::string& settings, double lease_s)
    : database_(std::move(database)),
      owner_(unique_name()),
      lease_ms_(static_cast<int64_t>(lease_s * 1000)) {
  make_tables();
  check_settings(settings);
  // An earlier process of a store that only one may open is gone.
  if (!shared()) query("UPDATE sources SET owner = '' WHERE owner <> ''");
}

Store::~Store() {
  try {
    query("UPDATE sources SET owner = '' WHERE owner = $1", {owner_});
  } catch (const Error&) {  // the connection is gone: the leases run out
  }
}

std::vector<Row> Store::query(const std::string& sql, const std::vector<Value>& values) {
  const std::lock_guard lock(mutex_);
  return database_->query(sql, values);
}

void Store::transaction(const std::function<void()>& body) {
  const std::lock_guard lock(mutex_);
  query(database_->dialect().begin);
  try {
    body();
    query("COMMIT");
  } catch (...) {
    try {
      query("ROLLBACK");
    } catch (const Error&) {  // the first error says more
    }
    throw;
  }
}

void Store::make_tables() {
  transaction([&] {
    database_->exclude_others();
    for (std::string sql : kSchema) {
      replace(sql, "BYTES", database_->dialect().bytes);
      replace(sql, "PATH_KEY", database_->dialect().path_key);
      query(sql);
    }
    if (!shared()) add_columns();
  });
}

// SQLite files of before 2026-11-30 lack columns.
void Store::add_columns() {
  for (const auto& [table, column] : {std::pair("sources", "owner TEXT NOT NULL DEFAULT ''"),
                                      std::pair("sources", "lease_ms BIGINT NOT NULL DEFAULT 0"),
                                      std::pair("segments", "detail BLOB NOT NULL DEFAULT ''")}) {
    const std::string name(column, std::string(column).find(' '));
    if (query("SELECT 1 FROM pragma_table_info($1) WHERE name = $2", {std::string(table), name})
            .empty())
      query(std::string("ALTER TABLE ") + table + " ADD COLUMN " + column);
  }
}

void Store::check_settings(const std::string& settings) {
  transaction([&] {
    database_->exclude_others();
    const auto rows = query("SELECT text FROM settings");
    if (rows.empty())
      query("INSERT INTO settings VALUES ($1)", {settings});
    else
      require(rows[0][0] == settings, database_->name(),
              ": this folder was begun with other settings: ", rows[0][0], ", now ", settings,
              " (choose another output folder)");
  });
}

int64_t Store::list(const std::vector<std::pair<std::string, std::string>>& paths_and_reasons) {
  int64_t listing = 0;
  transaction([&] {
    database_->exclude_others();
    for (const auto& [path, reason] : paths_and_reasons)
      query(
          "INSERT INTO sources (id, path, stage, reason, sha256, bytes, duration_us, info) SELECT "
          "COALESCE(MAX(id), 0) + 1, $1, $2, $3, '', 0, 0, '{}' FROM sources WHERE TRUE "
          "ON CONFLICT DO NOTHING",
          {Bytes{path}, std::string(reason.empty() ? "listed" : "failed"), Bytes{reason}});
    listing = number(query("INSERT INTO progress VALUES ('listed', 1) ON CONFLICT (name) DO UPDATE "
                           "SET listing = progress.listing + 1 RETURNING listing")
                         .at(0),
                     0);
  });
  return listing;
}

int64_t Store::listings() {
  return number(query("SELECT listing FROM progress WHERE name = 'listed'").at(0), 0);
}

std::vector<Source> Store::sources(const std::string& stage) {
  std::vector<Source> sources;
  for (const Row& row : query(std::string("SELECT ") + kSourceColumns +
                                  " FROM sources WHERE $1 = '' OR stage = $1 ORDER BY id",
                              {stage}))
    sources.push_back(source_of(row));
  return sources;
}

std::optional<Source> Store::claim(Work work, int64_t after) {
  const Dialect& d = database_->dialect();
  const std::string sql = std::string("UPDATE sources SET owner = $1, lease_ms = $2 + ") +
                          d.now_ms + " WHERE id = (SELECT s.id FROM sources AS s WHERE " +
                          condition(work) + " AND s.id > $3 AND (s.owner = '' OR s.lease_ms < " +
                          d.now_ms + ") ORDER BY s.id LIMIT 1" + d.skip_locked + ") RETURNING " +
                          kSourceColumns;
  auto rows = query(sql, {owner_, lease_ms_, after});
  if (rows.empty() && after > 0) rows = query(sql, {owner_, lease_ms_, int64_t{0}});
  return rows.empty() ? std::nullopt : std::optional(source_of(rows[0]));
}

void Store::release(int64_t source) {
  query("UPDATE sources SET owner = '' WHERE id = $1 AND owner = $2", {source, owner_});
}

void Store::renew() {
  query(std::string("UPDATE sources SET lease_ms = $1 + ") + database_->dialect().now_ms +
            " WHERE owner = $2",
        {lease_ms_, owner_});
}

int64_t Store::remaining(Work work) {
  return number(query("SELECT COUNT(*) FROM sources AS s WHERE " + condition(work)).at(0), 0);
}

bool Store::holds(int64_t source) {
  return !query(std::string("SELECT 1 FROM sources WHERE id = $1 AND owner = $2") +
                    database_->dialect().lock_row,
                {source, owner_})
              .empty();
}

void Store::save(const Source& source) {
  query(
      "UPDATE sources SET stage = $1, reason = $2, sha256 = $3, bytes = $4, duration_us = $5, "
      "info = $6 WHERE id = $7 AND owner = $8",
      {source.stage, Bytes{source.reason}, source.sha256, source.bytes, source.duration_us,
       source.info.dump(), source.id, owner_});
}

void Store::fail_source(int64_t id, const std::string& reason) {
  query("UPDATE sources SET stage = 'failed', reason = $1 WHERE id = $2 AND owner = $3",
        {Bytes{reason}, id, owner_});
}

void Store::mark_duplicates() {
  query(
      "UPDATE sources SET stage = 'duplicate', reason = (SELECT o.path FROM sources AS o WHERE "
      "o.sha256 = sources.sha256 AND o.stage IN ('probed', 'analysed') ORDER BY o.id LIMIT 1) "
      "WHERE stage = 'probed' AND EXISTS (SELECT 1 FROM sources AS o WHERE o.sha256 = "
      "sources.sha256 AND o.stage IN ('probed', 'analysed') AND o.id < sources.id)");
}

void Store::save_segments(const Video& video) {
  transaction([&] {
    if (!holds(video.id)) return;
    for (const Segment& s : video.segments)
      query(
          "INSERT INTO segments (source, first, \"end\", begin_us, end_us, state, reason, id, "
          "scores, hashes, file, copied) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, "
          "$12) ON CONFLICT DO NOTHING",
          {video.id, s.first, s.end, s.begin_us, s.end_us, state_name(s.state), s.reason, s.id,
           s.scores.dump(), join_hashes(s.hashes), s.file, int64_t{s.copied}});
    query("UPDATE sources SET stage = 'analysed', reason = $1 WHERE id = $2",
          {Bytes{video.damage}, video.id});
  });
}

std::vector<Segment> Store::segments(int64_t source) {
  std::vector<Segment> segments;
  for (const Row& row :
       query("SELECT first, \"end\", begin_us, end_us, state, reason, id, scores, hashes, file, "
             "copied, detail FROM segments WHERE source = $1 ORDER BY first",
             {source}))
    segments.push_back({.first = number(row, 0),
                        .end = number(row, 1),
                        .begin_us = number(row, 2),
                        .end_us = number(row, 3),
                        .state = parse_state(row[4]),
                        .reason = row[5],
                        .detail = row[11],
                        .id = row[6],
                        .scores = Json::parse(row[7]),
                        .hashes = split_hashes(row[8]),
                        .file = row[9],
                        .copied = number(row, 10) != 0});
  return segments;
}

void Store::update(const std::vector<Segment>& segments) {
  for (const Segment& s : segments) {
    // What is kept no more loses its files (publish.h); it may be kept again.
    if (s.state != State::kKept) query("DELETE FROM made WHERE id = $1", {s.id});
    query(
        "UPDATE segments SET state = $1, reason = $2, detail = $3, file = $4, copied = $5, scores "
        "= $6 WHERE id = $7",
        {state_name(s.state), s.reason, Bytes{s.detail}, s.file, int64_t{s.copied}, s.scores.dump(),
         s.id});
  }
}

void Store::update_segments(int64_t source, const std::vector<Segment>& segments) {
  transaction([&] {
    if (holds(source)) update(segments);
  });
}

void Store::decide_segments(const std::vector<Segment>& segments) {
  transaction([&] { update(segments); });
}

void Store::save_embedding(const std::string& clip, const std::vector<float>& vector) {
  const std::string bytes(reinterpret_cast<const char*>(vector.data()),
                          vector.size() * sizeof(float));
  query("INSERT INTO embeddings VALUES ($1, $2) ON CONFLICT DO NOTHING", {clip, Bytes{bytes}});
}

bool Store::has_embedding(const std::string& clip) {
  return !query("SELECT 1 FROM embeddings WHERE id = $1", {clip}).empty();
}

std::vector<float> Store::embedding(const std::string& clip) {
  const auto rows = query("SELECT vector FROM embeddings WHERE id = $1", {clip});
  require(!rows.empty(), database_->name(), ": clip ", clip, " has no embedding");
  std::vector<float> vector(rows[0][0].size() / sizeof(float));
  std::copy(rows[0][0].begin(), rows[0][0].end(), reinterpret_cast<char*>(vector.data()));
  return vector;
}

void Store::save_caption(const std::string& clip, const std::string& text) {
  query("INSERT INTO captions VALUES ($1, $2) ON CONFLICT DO NOTHING", {clip, Bytes{text}});
}

std::optional<std::string> Store::caption(const std::string& clip) {
  const auto rows = query("SELECT text FROM captions WHERE id = $1", {clip});
  return rows.empty() ? std::nullopt : std::optional(rows[0][0]);
}

void Store::save_made(const std::string& kind, int64_t source, const std::string& clip) {
  transaction([&] {
    if (holds(source))
      query("INSERT INTO made VALUES ($1, $2) ON CONFLICT DO NOTHING", {kind, clip});
  });
}

bool Store::is_made(const std::string& kind, const std::string& clip) {
  return !query("SELECT 1 FROM made WHERE kind = $1 AND id = $2", {kind, clip}).empty();
}

}  // namespace cosmos::curate
