#pragma once

// The engine: videos go through stages. Every thread can work in every stage, and takes the video
// that is furthest along: the slowest stage has as many threads as it can use, whichever that is,
// and what is begun is finished before more is begun.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
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
  /// Threads that may be in it at a time; 0: any number.
  virtual int64_t most_threads() const { return 0; }
};

struct PipelineLimits {
  int64_t threads = 1;
  int64_t queue = 4;   ///< videos that may wait before a stage
  int64_t memory = 0;  ///< allocated bytes above which no further video is begun; 0: any
};

/// What a stage did.
struct StageUse {
  std::string name;
  int64_t videos = 0;
  double seconds = 0;        ///< sum over threads
  int64_t most_threads = 0;  ///< at one time
};

/// Sends what `next` returns, until null, through all stages in turn; `done` is called with each
/// that left the last. Each of the two is called by one thread at a time. Rethrows the first
/// exception of a stage, of `next` or of `done`.
std::vector<StageUse> run_pipeline(const std::vector<std::shared_ptr<Stage>>& stages,
                                   const PipelineLimits& limits,
                                   const std::function<std::unique_ptr<Video>()>& next,
                                   const std::function<void(const Video&)>& done);

/// Bytes that this process has allocated and not freed.
int64_t allocated_bytes();

}  // namespace cosmos::curate
