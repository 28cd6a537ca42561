#pragma once

// What has been done: a run that was killed goes on from it, and several programs share it. Every
// change is one transaction, so a video's parts are there together or not at all.
//
// Work is leased. claim() gives a video to this process until release(), or until the lease runs
// out unrenewed (a killed process): then others take it up. What is stored about a video counts
// only while its lease is held, so that a process that was thought dead cannot disturb its heir.
// In SQLite there is one process, and nothing is ever taken from it.

#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "tools/curate/database.h"
#include "tools/curate/video.h"

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

/// What can be left to do for a video: it is listed; it is probed; a kept clip of it has no
/// score of text, aesthetic score, embedding, file, caption, latents, embedding of its caption.
enum class Work {
  kProbe,
  kAnalyse,
  kText,
  kAesthetic,
  kEmbed,
  kWrite,
  kCaption,
  kLatents,
  kTextEmbeds
};

class Store {
 public:
  /// Throws Error when the database was made with other settings.
  Store(std::unique_ptr<Database> database, const std::string& settings, double lease_s);
  /// Gives back what is still leased.
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  bool shared() const { return database_->shared(); }

  /// Adds what is new, in order; `reason` is why a path cannot be opened, or empty. Returns this
  /// process's number among all that ever listed.
  int64_t list(const std::vector<std::pair<std::string, std::string>>& paths_and_reasons);
  /// In order of listing; all, or those of one stage.
  std::vector<Source> sources(const std::string& stage = "");

  /// The next video after number `after`, then the first, that needs the work and nobody has.
  std::optional<Source> claim(Work work, int64_t after);
  void release(int64_t source);
  /// Puts off the end of all leases of this process.
  void renew();
  /// How many videos need the work, leased ones too.
  int64_t remaining(Work work);
  /// How many processes have listed until now.
  int64_t listings();
  /// Runs `body` alone among all processes.
  void alone(const std::function<void()>& body);
  /// The same, unless another has done so since listing
  /// number `mine`. `covered`: listings() before the work was found finished that `body` builds on.
  void once(const std::string& name, int64_t mine, int64_t covered,
            const std::function<void()>& body);

  /// A probed video.
  void save(const Source& source);
  /// Ends a source early.
  void fail_source(int64_t id, const std::string& reason);
  /// Of sources with equal content all but the first become duplicates.
  void mark_duplicates();

  /// The parts of an analysed video, and that it is analysed.
  void save_segments(const Video& video);
  std::vector<Segment> segments(int64_t source);
  /// State, reason, scores and file of a leased video's parts that are there already.
  void update_segments(int64_t source, const std::vector<Segment>& segments);
  /// The same of any video, within once().
  void decide_segments(const std::vector<Segment>& segments);

  /// Vectors of clips by id.
  void save_embedding(const std::string& clip, const std::vector<float>& vector);
  bool has_embedding(const std::string& clip);
  /// Throws Error when there is none.
  std::vector<float> embedding(const std::string& clip);

  /// What a model said of a clip; none: it was not asked.
  void save_caption(const std::string& clip, const std::string& text);
  std::optional<std::string> caption(const std::string& clip);

  /// Says that the file of this kind (encode.h) of a leased video's clip is there.
  void save_made(const std::string& kind, int64_t source, const std::string& clip);
  bool is_made(const std::string& kind, const std::string& clip);

 private:
  std::vector<Row> query(const std::string& sql, const std::vector<Value>& values = {});
  void transaction(const std::function<void()>& body);
  /// Within a transaction: whether this process has the video, and keeps it until the end.
  bool holds(int64_t source);
  void make_tables();
  void add_columns();
  void check_settings(const std::string& settings);
  void update(const std::vector<Segment>& segments);

  std::unique_ptr<Database> database_;
  std::string owner_;
  int64_t lease_ms_;
  std::recursive_mutex mutex_;
};

}  // namespace cosmos::curate
