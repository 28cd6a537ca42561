#include "tools/curate/curate.h"

#include <ATen/Parallel.h>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <filesystem>
#include <mutex>
#include <ostream>
#include <thread>

#include "tools/curate/account.h"
#include "tools/curate/ingest.h"
#include "tools/curate/near_duplicates.h"
#include "tools/curate/publish.h"
#include "tools/curate/stages.h"
#include "trainer/report/console.h"

namespace cosmos::curate {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

/// One line of progress: videos, clips a second, hours of video an hour.
class Meter {
 public:
  Meter(std::ostream& out, bool terminal, std::string what, std::size_t total)
      : console_(out, terminal), what_(std::move(what)), total_(static_cast<int64_t>(total)) {}

  void add(const Video& video) {
    ++done_;
    const int64_t frames = video.info.frames();
    us_ += frames ? video.microseconds(frames) : 0;
    for (const Segment& s : video.segments) clips_ += s.state == State::kKept;
    const double seconds = std::chrono::duration<double>(Clock::now() - start_).count() + 1e-9;
    const double left = seconds * static_cast<double>(total_ - done_) / static_cast<double>(done_);
    const std::string details =
        trainer::format_number(static_cast<double>(clips_) / seconds) + " clips/s  " +
        trainer::format_number(static_cast<double>(us_) / 1e6 / seconds) + " h/h";
    console_.progress(
        {.what = what_, .done = done_, .total = total_, .seconds_left = left, .details = details},
        done_ == total_);
  }

 private:
  trainer::Console console_;
  std::string what_;
  int64_t total_, done_ = 0, clips_ = 0, us_ = 0;
  Clock::time_point start_ = Clock::now();
};

/// Hands out videos of the store one by one.
class Feed {
 public:
  explicit Feed(std::vector<Source> sources) : sources_(std::move(sources)) {}
  std::unique_ptr<Video> operator()() {
    if (next_ == sources_.size()) return nullptr;
    const Source& source = sources_[next_++];
    auto video = std::make_unique<Video>();
    video->id = source.id;
    video->path = source.path;
    video->sha256 = source.sha256;
    return video;
  }

 private:
  std::vector<Source> sources_;
  std::size_t next_ = 0;
};

void probe_all(Store& store, int64_t workers) {
  const std::vector<Source> listed = store.sources("listed");
  std::atomic<std::size_t> next{0};
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::exception_ptr error;
  const auto work = [&] {
    try {
      for (std::size_t i = next++; i < listed.size(); i = next++) {
        Source source = listed[i];
        probe_source(source);
        store.save(source);
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      error = std::current_exception();
    }
  };
  for (int64_t n = 0; n < workers; ++n) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
}

void analyse_all(Store& store, const Config& config, std::ostream& out, bool terminal) {
  std::vector<Source> sources = store.sources("probed");
  Meter meter(out, terminal, "analysed", sources.size());
  Pipeline pipeline(config.workers.queue);
  pipeline.add(std::make_shared<Analyse>(), config.workers.analyse);
  pipeline.add(std::make_shared<Split>(config.split), 1);
  pipeline.add(std::make_shared<Filter>(config.filter), 1);
  pipeline.add(std::make_shared<Save>(store), 1);
  pipeline.run(Feed(std::move(sources)), [&](const Video& video) { meter.add(video); });
}

/// Probes again what has clips to write.
class Load : public Stage {
 public:
  explicit Load(Store& store) : store_(store) {}
  std::string name() const override { return "load"; }
  void run(Video& video) override {
    video.segments = store_.segments(video.id);
    const bool wanted =
        std::any_of(video.segments.begin(), video.segments.end(),
                    [](const Segment& s) { return s.state == State::kKept && s.file.empty(); });
    if (wanted) video.info = trainer::probe_video(video.path);
  }

 private:
  Store& store_;
};

void write_all(Store& store, const Config& config, std::ostream& out, bool terminal) {
  std::vector<Source> sources = store.sources("analysed");
  Meter meter(out, terminal, "written", sources.size());
  Pipeline pipeline(config.workers.queue);
  pipeline.add(std::make_shared<Load>(store), 1);
  pipeline.add(std::make_shared<Write>(store, config.output, config.clips), config.workers.write);
  pipeline.run(Feed(std::move(sources)), [&](const Video& video) { meter.add(video); });
}

// What a killed run was in the middle of writing lies under hidden names.
void remove_unfinished(const fs::path& folder) {
  std::vector<fs::path> unfinished;
  if (!fs::is_directory(folder)) return;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().filename().string().front() == '.') unfinished.push_back(entry.path());
  for (const fs::path& path : unfinished) fs::remove(path);
}

}  // namespace

void curate(const Config& config, std::ostream& out, bool terminal) {
  at::set_num_threads(1);  // the stages' own threads fill the machine
  const fs::path output = config.output;
  fs::create_directories(output / "videos");
  Store store(output / "curate.sqlite", result_settings(config));
  for (const char* folder : {"", "videos", "metas"}) remove_unfinished(output / folder);
  const Listing listing = list_inputs(config.inputs);
  require(!listing.videos.empty(), "inputs: no video files there");
  store.list(listing.videos);
  out << listing.videos.size() << " videos listed, " << listing.other_files
      << " other files passed over\n";
  probe_all(store, config.workers.analyse);
  store.mark_duplicates();
  analyse_all(store, config, out, terminal);
  drop_near_duplicates(store, config.dedup.near_bits);
  write_all(store, config, out, terminal);
  const Account result = account(store);
  publish(store, config, result);
  out << result.table() << "the sums agree; " << (output / "clips.jsonl").string() << '\n';
}

}  // namespace cosmos::curate
