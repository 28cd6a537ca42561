#pragma once

// The engine: items go through stages, each with its own threads, over queues that hold a few. A
// full queue stops the stage before it, so what is in memory is bounded by the slowest stage.

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tools/curate/video.h"

namespace cosmos::curate {

/// One step of curation. run() is called by several threads, each with a video of its own; bad
/// media is recorded in the video, an exception stops the whole run.
class Stage {
 public:
  virtual ~Stage() = default;
  virtual std::string name() const = 0;
  virtual void run(Video& video) = 0;
};

/// A queue between two stages.
class VideoQueue {
 public:
  explicit VideoQueue(std::size_t capacity) : capacity_(capacity) {}

  /// Waits for room; false when the queue was stopped.
  bool push(std::unique_ptr<Video> video);
  /// Waits for a video; null when all were taken and none will come, or after stop().
  std::unique_ptr<Video> pop();
  void close();  ///< none will come
  void stop();   ///< nobody waits any more

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::unique_ptr<Video>> videos_;
  std::size_t capacity_;
  bool closed_ = false, stopped_ = false;
};

class Pipeline {
 public:
  explicit Pipeline(int64_t queue) : capacity_(static_cast<std::size_t>(queue)) {}

  void add(std::shared_ptr<Stage> stage, int64_t workers);
  /// Sends what `next` returns, until null, through all stages in turn; `done` is called with each
  /// that left the last, by one thread at a time. Rethrows the first exception of a stage.
  void run(const std::function<std::unique_ptr<Video>()>& next,
           const std::function<void(const Video&)>& done);

 private:
  struct Step {
    std::shared_ptr<Stage> stage;
    int64_t workers = 1;
  };
  std::size_t capacity_;
  std::vector<Step> steps_;
};

}  // namespace cosmos::curate
