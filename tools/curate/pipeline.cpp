#include "tools/curate/pipeline.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <malloc.h>
#include <mutex>
#include <optional>
#include <thread>

#include "ops/core/error.h"

namespace cosmos::curate {
namespace {

using Clock = std::chrono::steady_clock;

/// A stage and what waits before it.
struct Step {
  Stage& stage;
  std::deque<std::unique_ptr<Video>> waiting{};
  int64_t running = 0;
  StageUse use{};
};

class Scheduler {
 public:
  Scheduler(const std::vector<std::shared_ptr<Stage>>& stages, const PipelineLimits& limits,
            const std::function<std::unique_ptr<Video>()>& next,
            const std::function<void(const Video&)>& done)
      : limits_(limits), next_(next), done_(done) {
    for (const auto& stage : stages) steps_.push_back({.stage = *stage, .use = {stage->name()}});
  }

  void run() {
    std::vector<std::thread> threads;
    for (int64_t n = 0; n < limits_.threads; ++n) threads.emplace_back([this] { work(); });
    for (std::thread& thread : threads) thread.join();
    if (error_) std::rethrow_exception(error_);
  }

  std::vector<StageUse> uses() const {
    std::vector<StageUse> uses;
    for (const Step& step : steps_) uses.push_back(step.use);
    return uses;
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (!error_ && !(exhausted_ && inside_ == 0)) {
      try {
        if (const auto step = ready())
          advance(*step, lock);
        else if (may_feed())
          feed(lock);
        else
          changed_.wait(lock);
      } catch (...) {
        if (!lock.owns_lock()) lock.lock();
        if (!error_) error_ = std::current_exception();
      }
      changed_.notify_all();
    }
  }

  /// The last stage that has a video, a thread to spare and room for what comes out of it.
  std::optional<std::size_t> ready() const {
    for (std::size_t i = steps_.size(); i-- > 0;) {
      const Step& step = steps_[i];
      const int64_t most = step.stage.most_threads();
      if (step.waiting.empty() || (most > 0 && step.running >= most)) continue;
      if (i + 1 == steps_.size() || waiting(i + 1) + step.running < limits_.queue) return i;
    }
    return std::nullopt;
  }

  int64_t waiting(std::size_t i) const { return static_cast<int64_t>(steps_[i].waiting.size()); }

  bool may_feed() const {
    return !feeding_ && !exhausted_ && waiting(0) < limits_.queue &&
           (limits_.memory == 0 || inside_ == 0 || allocated_bytes() <= limits_.memory);
  }

  void feed(std::unique_lock<std::mutex>& lock) {
    feeding_ = true;
    lock.unlock();
    std::unique_ptr<Video> video = next_();
    lock.lock();
    feeding_ = false;
    exhausted_ = video == nullptr;
    if (exhausted_) return;
    ++inside_;
    steps_[0].waiting.push_back(std::move(video));
  }

  void advance(std::size_t i, std::unique_lock<std::mutex>& lock) {
    Step& step = steps_[i];
    std::unique_ptr<Video> video = std::move(step.waiting.front());
    step.waiting.pop_front();
    step.use.most_threads = std::max(step.use.most_threads, ++step.running);
    lock.unlock();
    const auto start = Clock::now();
    step.stage.run(*video);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    const bool last = i + 1 == steps_.size();
    if (last) {
      const std::lock_guard one(done_mutex_);
      done_(*video);
      video.reset();
    }
    lock.lock();
    --step.running;
    ++step.use.videos;
    step.use.seconds += seconds;
    if (last)
      --inside_;
    else
      steps_[i + 1].waiting.push_back(std::move(video));
  }

  const PipelineLimits& limits_;
  const std::function<std::unique_ptr<Video>()>& next_;
  const std::function<void(const Video&)>& done_;
  std::mutex mutex_, done_mutex_;
  std::condition_variable changed_;
  std::deque<Step> steps_;
  int64_t inside_ = 0;
  bool feeding_ = false, exhausted_ = false;
  std::exception_ptr error_;
};

}  // namespace

std::vector<StageUse> run_pipeline(const std::vector<std::shared_ptr<Stage>>& stages,
                                   const PipelineLimits& limits,
                                   const std::function<std::unique_ptr<Video>()>& next,
                                   const std::function<void(const Video&)>& done) {
  require(!stages.empty() && limits.threads >= 1 && limits.queue >= 1,
          "a pipeline needs a stage, a thread and room for one video");
  Scheduler scheduler(stages, limits, next, done);
  scheduler.run();
  return scheduler.uses();
}

int64_t allocated_bytes() {
  const auto info = ::mallinfo2();
  return static_cast<int64_t>(info.uordblks + info.hblkhd);
}

}  // namespace cosmos::curate
