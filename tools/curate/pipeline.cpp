#include "tools/curate/pipeline.h"

#include <atomic>

#include "ops/core/error.h"

namespace cosmos::curate {

bool VideoQueue::push(std::unique_ptr<Video> video) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stopped_ || videos_.size() < capacity_; });
  if (stopped_) return false;
  videos_.push_back(std::move(video));
  changed_.notify_all();
  return true;
}

std::unique_ptr<Video> VideoQueue::pop() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stopped_ || closed_ || !videos_.empty(); });
  if (stopped_ || videos_.empty()) return nullptr;
  std::unique_ptr<Video> video = std::move(videos_.front());
  videos_.pop_front();
  changed_.notify_all();
  return video;
}

void VideoQueue::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

void VideoQueue::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_all();
}

void Pipeline::add(std::shared_ptr<Stage> stage, int64_t workers) {
  steps_.push_back({std::move(stage), workers});
}

void Pipeline::run(const std::function<std::unique_ptr<Video>()>& next,
                   const std::function<void(const Video&)>& done) {
  require(!steps_.empty(), "a pipeline needs a stage");
  std::vector<std::unique_ptr<VideoQueue>> queues;
  for (std::size_t i = 0; i < steps_.size(); ++i)
    queues.push_back(std::make_unique<VideoQueue>(capacity_));
  std::mutex mutex;  // of `done` and `error`
  std::exception_ptr error;
  const auto fail_all = [&] {
    const std::lock_guard lock(mutex);
    if (!error) error = std::current_exception();
    for (auto& queue : queues) queue->stop();
  };
  std::vector<std::atomic<int64_t>> left(steps_.size());
  const auto work = [&](std::size_t i) {
    try {
      while (std::unique_ptr<Video> video = queues[i]->pop()) {
        steps_[i].stage->run(*video);
        if (i + 1 < steps_.size()) {
          if (!queues[i + 1]->push(std::move(video))) break;
        } else {
          const std::lock_guard lock(mutex);
          done(*video);
        }
      }
    } catch (...) {
      fail_all();
    }
    if (--left[i] == 0 && i + 1 < steps_.size()) queues[i + 1]->close();
  };
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    left[i] = steps_[i].workers;
    for (int64_t n = 0; n < steps_[i].workers; ++n) threads.emplace_back(work, i);
  }
  try {
    while (std::unique_ptr<Video> video = next())
      if (!queues[0]->push(std::move(video))) break;
  } catch (...) {
    fail_all();
  }
  queues[0]->close();
  for (std::thread& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace cosmos::curate
