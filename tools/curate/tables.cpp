#include "tools/curate/tables.h"

#include <filesystem>

#include "tools/curate/parquet_file.h"
#include "tools/curate/publish.h"

namespace cosmos::curate {
namespace {

/// Rows of JSON objects under columns that are known beforehand.
class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  void add(const Json& row) {
    for (Column& column : columns_)
      column.cells.push_back(row.contains(column.name) ? cell(column.kind, row[column.name])
                                                       : Cell());
  }
  void write(const std::filesystem::path& path) const { write_parquet(path, columns_); }

 private:
  static Cell cell(Kind kind, const Json& value) {
    if (value.is_null()) return {};
    switch (kind) {
      case Kind::kText:
        return value.get<std::string>();
      case Kind::kInteger:
        return value.get<int64_t>();
      case Kind::kReal:
        return value.get<double>();
      case Kind::kFlag:
        return value.get<bool>();
      case Kind::kVector:
        return value.get<std::vector<float>>();
    }
    fail("unknown kind of column");
  }

  std::vector<Column> columns_;
};

const std::vector<Column> kClipColumns = {{"span_uuid", Kind::kText},
                                          {"source_video", Kind::kText},
                                          {"source_sha256", Kind::kText},
                                          {"begin_s", Kind::kReal},
                                          {"end_s", Kind::kReal},
                                          {"first_frame", Kind::kInteger},
                                          {"num_frames", Kind::kInteger},
                                          {"state", Kind::kText},
                                          {"reason", Kind::kText},
                                          {"detail", Kind::kText},
                                          {"height", Kind::kInteger},
                                          {"width", Kind::kInteger},
                                          {"framerate", Kind::kReal},
                                          {"video", Kind::kText},
                                          {"stream_copy", Kind::kFlag},
                                          {"caption", Kind::kText},
                                          {"score_black", Kind::kReal},
                                          {"score_frozen", Kind::kReal},
                                          {"score_sharpness", Kind::kReal},
                                          {"score_motion", Kind::kReal},
                                          {"score_patch_motion", Kind::kReal},
                                          {"score_text", Kind::kReal},
                                          {"score_aesthetic", Kind::kReal}};

const std::vector<Column> kSourceColumns = {
    {"source_video", Kind::kText}, {"source_sha256", Kind::kText}, {"bytes", Kind::kInteger},
    {"duration_s", Kind::kReal},   {"stage", Kind::kText},         {"reason", Kind::kText},
    {"height", Kind::kInteger},    {"width", Kind::kInteger},      {"fps", Kind::kReal},
    {"frames", Kind::kInteger},    {"codec", Kind::kText},         {"container", Kind::kText}};

/// The same with text that is UTF-8.
Json valid(const Json& json) {
  return Json::parse(json_line(json));
}

Json clip_row(Store& store, const Config& config, const Source& source, const Segment& clip) {
  Json row = part_json(store, config, source, clip);
  row["begin_s"] = row["duration_span"][0];
  row["end_s"] = row["duration_span"][1];
  for (const auto& [name, value] : clip.scores.items()) row["score_" + name] = value;
  return valid(row);
}

Json source_row(const Source& source) {
  Json row = source.info;
  row.update({{"source_video", source.path},
              {"source_sha256", source.sha256},
              {"bytes", source.bytes},
              {"duration_s", static_cast<double>(source.duration_us) / 1e6},
              {"stage", source.stage},
              {"reason", source.reason}});
  return valid(row);
}

}  // namespace

void write_tables(Store& store, const Config& config) {
  if (!config.outputs.parquet) return;
  const std::filesystem::path folder = std::filesystem::path(config.output) / "parquet";
  Table clips(kClipColumns), sources(kSourceColumns);
  Table embeddings({{"id", Kind::kText}, {"embedding", Kind::kVector}});
  for (const Source& source : store.sources()) {
    sources.add(source_row(source));
    for (const Segment& clip : store.segments(source.id)) {
      clips.add(clip_row(store, config, source, clip));
      if (store.has_embedding(clip.id))
        embeddings.add({{"id", clip.id}, {"embedding", store.embedding(clip.id)}});
    }
  }
  clips.write(folder / "clips.parquet");
  sources.write(folder / "sources.parquet");
  embeddings.write(folder / "embeddings.parquet");
}

}  // namespace cosmos::curate
