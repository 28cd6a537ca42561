#pragma once

// What has been done, in one SQLite file: a run that was killed goes on from it. Every change is
// one transaction, so a video's parts are there together or not at all.

#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "tools/curate/video.h"

struct sqlite3;
struct sqlite3_stmt;

namespace cosmos::curate {

/// Listed -> probed -> analysed; or ended early: failed, or dropped as a duplicate.
struct Source {
  int64_t id = 0;
  std::string path{};
  std::string stage{};   ///< listed, probed, analysed, failed, duplicate
  std::string reason{};  ///< of a failure; the path of the original of a duplicate
  std::string sha256{};
  int64_t bytes = 0;
  int64_t duration_us = 0;
  Json info = Json::object();  ///< height, width, fps, frames, codec
};

class Store {
 public:
  /// Opens or makes the file. Throws Error when it was made with other settings.
  Store(const std::filesystem::path& path, const std::string& settings);
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  /// Adds what is new, in order; `reason` is why a path cannot be opened, or empty.
  void list(const std::vector<std::pair<std::string, std::string>>& paths_and_reasons);
  /// In order of listing; all, or those of one stage.
  std::vector<Source> sources(const std::string& stage = "");
  void save(const Source& source);
  /// Ends a source early.
  void fail_source(int64_t id, const std::string& reason);
  /// Of sources with equal content all but the first become duplicates.
  void mark_duplicates();

  /// The parts of an analysed video, and that it is analysed.
  void save_segments(const Video& video);
  std::vector<Segment> segments(int64_t source);
  /// State, reason and file of parts that are there already.
  void update_segments(const std::vector<Segment>& segments);

  /// Vectors of clips by id.
  void save_embedding(const std::string& clip, const std::vector<float>& vector);
  bool has_embedding(const std::string& clip);
  /// Throws Error when there is none.
  std::vector<float> embedding(const std::string& clip);

  /// What a model said of a clip; none: it was not asked.
  void save_caption(const std::string& clip, const std::string& text);
  std::optional<std::string> caption(const std::string& clip);

 private:
  class Statement;
  void execute(const std::string& sql);
  void transaction(const std::function<void()>& body);
  [[noreturn]] void fail_sql(const std::string& what) const;
  void check_settings(const std::string& settings);

  std::string name_;
  sqlite3* db_ = nullptr;
  std::mutex mutex_;
};

}  // namespace cosmos::curate
