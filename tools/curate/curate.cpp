#include "tools/curate/curate.h"

#include <ATen/Parallel.h>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <ostream>

#include "tools/curate/account.h"
#include "tools/curate/caption.h"
#include "tools/curate/ingest.h"
#include "tools/curate/metadata_tree.h"
#include "tools/curate/near_duplicates.h"
#include "tools/curate/publish.h"
#include "tools/curate/report.h"
#include "tools/curate/semantic.h"
#include "tools/curate/shards.h"
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
    std::string details = trainer::format_number(static_cast<double>(us_) / 1e6 / seconds) + " h/h";
    if (clips_ > 0)
      details =
          trainer::format_number(static_cast<double>(clips_) / seconds) + " clips/s  " + details;
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

/// Sends the videos of one stage of the store through `stages`, each with its threads.
using Stages = std::vector<std::pair<std::shared_ptr<Stage>, int64_t>>;
struct Runner {
  Store& store;
  const Config& config;
  std::ostream& out;
  bool terminal;

  void run(const std::string& from, const std::string& what, const Stages& stages) {
    std::vector<Source> sources = store.sources(from);
    Meter meter(out, terminal, what, sources.size());
    Pipeline pipeline(config.workers.queue);
    for (const auto& [stage, workers] : stages) pipeline.add(stage, workers);
    pipeline.run(Feed(std::move(sources)), [&](const Video& video) { meter.add(video); });
  }
};

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

// What a killed run was in the middle of writing lies under AtomicFile's temporary names.
void remove_unfinished(const fs::path& output) {
  std::vector<fs::path> unfinished;
  for (const auto& entry : fs::recursive_directory_iterator(output)) {
    const std::string name = entry.path().filename().string();
    if (name.front() == '.' && name.find(".tmp-") != std::string::npos && entry.is_regular_file())
      unfinished.push_back(entry.path());
  }
  for (const fs::path& path : unfinished) fs::remove(path);
}

}  // namespace

void curate(const Config& config, std::ostream& out, bool terminal) {
  at::set_num_threads(1);  // the stages' own threads fill the machine
  const fs::path output = config.output;
  fs::create_directories(output / "videos");
  Store store(output / "curate.sqlite", result_settings(config));
  remove_unfinished(output);
  const Listing listing = list_inputs(config.inputs);
  require(!listing.videos.empty(), "inputs: no video files there");
  store.list(listing.videos);
  out << listing.videos.size() << " videos listed, " << listing.other_files
      << " other files passed over\n";
  Runner runner{store, config, out, terminal};
  const WorkerConfig& workers = config.workers;
  runner.run("listed", "probed", {{std::make_shared<Probe>(store), workers.analyse}});
  store.mark_duplicates();
  Stages analysis = {{std::make_shared<Analyse>(config.split), workers.analyse}};
  if (config.frame_scores)
    analysis.emplace_back(std::make_shared<SaveFrameScores>(output / "frame_scores"), 1);
  analysis.emplace_back(std::make_shared<Split>(config.split), 1);
  analysis.emplace_back(std::make_shared<Filter>(config.filter), 1);
  analysis.emplace_back(std::make_shared<Save>(store), 1);
  runner.run("probed", "analysed", analysis);
  drop_near_duplicates(store, config.dedup.near_bits);
  if (!config.dedup.model.empty()) {
    runner.run("analysed", "embedded", {{std::make_shared<Embed>(store, config.dedup), 1}});
    drop_semantic_duplicates(store, config);
  }
  runner.run("analysed", "written",
             {{std::make_shared<Load>(store), 1},
              {std::make_shared<Write>(store, output, config.clips), workers.write}});
  if (!config.captions.model.empty())
    runner.run("analysed", "captioned",
               {{std::make_shared<Caption>(store, output, config.captions), 1}});
  const Account result = account(store);
  publish(store, config, result);
  write_shards(store, config);
  write_metadata_tree(store, config, result);
  write_report(store, config, result);
  out << result.table() << "the sums agree; " << (output / "report.html").string() << '\n';
}

}  // namespace cosmos::curate
