// cosmos-curate's engine alone: order, bounds, who gets the threads, errors.

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <set>
#include <thread>

#include "ops/core/error.h"
#include "tools/curate/pipeline.h"

using namespace cosmos;
using namespace cosmos::curate;

namespace {

/// Takes a while, and keeps what it needs.
class Busy : public Stage {
 public:
  Busy(std::string name, int milliseconds, int64_t most = 0)
      : name_(std::move(name)), pause_(milliseconds), most_(most) {}
  std::string name() const override { return name_; }
  int64_t most_threads() const override { return most_; }
  void run(Video& video) override {
    video.damage += name_;
    video.sha256.resize(bytes);
    std::this_thread::sleep_for(pause_);
    if (video.id == fails_at) fail("stage ", name_, " broke");
  }
  std::size_t bytes = 0;
  int64_t fails_at = -1;

 private:
  std::string name_;
  std::chrono::milliseconds pause_;
  int64_t most_;
};

/// Hands out `count` videos and counts how many are inside.
struct Belt {
  int64_t count, given = 0;
  std::atomic<int64_t> inside{0}, most{0};
  std::multiset<std::string> left{};

  std::unique_ptr<Video> next() {
    if (given == count) return nullptr;
    auto video = std::make_unique<Video>();
    video->id = given++;
    most = std::max<int64_t>(most, ++inside);
    return video;
  }
  void done(const Video& video) {
    --inside;
    left.insert(video.damage);
  }
  std::vector<StageUse> run(const std::vector<std::shared_ptr<Stage>>& stages,
                            const PipelineLimits& limits) {
    return run_pipeline(
        stages, limits, [this] { return next(); }, [this](const Video& video) { done(video); });
  }
};

}  // namespace

TEST_CASE("the pipeline sends every video through every stage once, a bounded number at a time",
          "[curate][curate-pipeline]") {
  Belt belt{.count = 300};
  const auto uses = belt.run({std::make_shared<Busy>("a", 0), std::make_shared<Busy>("b", 1, 1),
                              std::make_shared<Busy>("c", 0)},
                             {.threads = 5, .queue = 2});
  CHECK(belt.left.size() == 300);
  CHECK(belt.left.count("abc") == 300);
  CHECK(belt.most <= 3 * 2 + 5);
  for (const StageUse& use : uses) CHECK(use.videos == 300);
  CHECK(uses[1].most_threads == 1);
}

TEST_CASE("the pipeline's slowest stage gets the threads, whichever it is",
          "[curate][curate-pipeline]") {
  for (const int slow : {0, 1, 2}) {
    std::vector<std::shared_ptr<Stage>> stages;
    for (int i = 0; i < 3; ++i)
      stages.push_back(std::make_shared<Busy>(std::to_string(i), i == slow ? 20 : 0));
    Belt belt{.count = 40};
    const auto start = std::chrono::steady_clock::now();
    const auto uses = belt.run(stages, {.threads = 4, .queue = 4});
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    CHECK(uses[static_cast<std::size_t>(slow)].most_threads == 4);
    CHECK(seconds.count() < 0.6 * 40 * 0.020);  // 0.25 of one thread's time, and slack
  }
}

TEST_CASE("the pipeline begins no video while more memory is used than it may",
          "[curate][curate-pipeline]") {
  const auto run = [](int64_t memory) {
    const auto keep = std::make_shared<Busy>("keep", 0);
    keep->bytes = 64 << 20;
    Belt belt{.count = 40};
    belt.run({keep, std::make_shared<Busy>("slow", 10, 1)},
             {.threads = 4, .queue = 8, .memory = memory});
    CHECK(belt.left.size() == 40);
    return belt.most.load();
  };
  CHECK(run(0) > 5);
  CHECK(run(allocated_bytes() + (96 << 20)) <= 5);  // two hold 64 MiB each when the next is begun
}

TEST_CASE("the pipeline stops at the first error and says it", "[curate][curate-pipeline]") {
  const auto breaks = std::make_shared<Busy>("b", 1);
  breaks->fails_at = 7;
  Belt belt{.count = 1000};
  CHECK_THROWS_WITH(belt.run({std::make_shared<Busy>("a", 0), breaks}, {.threads = 3, .queue = 2}),
                    "stage b broke");
  CHECK(belt.given < 100);
}
