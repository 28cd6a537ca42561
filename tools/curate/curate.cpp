#include "tools/curate/curate.h"

#include <ATen/Parallel.h>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <ostream>
#include <thread>

#include "tools/curate/account.h"
#include "tools/curate/aesthetic.h"
#include "tools/curate/caption.h"
#include "tools/curate/cosmos3.h"
#include "tools/curate/encode.h"
#include "tools/curate/endpoint.h"
#include "tools/curate/ingest.h"
#include "tools/curate/leases.h"
#include "tools/curate/metadata_tree.h"
#include "tools/curate/near_duplicates.h"
#include "tools/curate/publish.h"
#include "tools/curate/report.h"
#include "tools/curate/semantic.h"
#include "tools/curate/shards.h"
#include "tools/curate/stages.h"
#include "tools/curate/tables.h"
#include "tools/curate/text_overlay.h"
#include "trainer/report/console.h"

namespace cosmos::curate {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

/// One line of progress: videos, clips a second, hours of video an hour.
class Meter {
 public:
  Meter(std::ostream& out, bool terminal, std::string what, int64_t total)
      : console_(out, terminal), what_(std::move(what)), total_(total) {}

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
  void line(const std::string& text) { console_.line(text); }

 private:
  trainer::Console console_;
  std::string what_;
  int64_t total_, done_ = 0, clips_ = 0, us_ = 0;
  Clock::time_point start_ = Clock::now();
};

/// Hands out videos of the store that need the work, one by one, until none is free.
class Feed {
 public:
  Feed(Store& store, Work work) : store_(store), work_(work) {}
  std::unique_ptr<Video> operator()() {
    const std::optional<Source> source = store_.claim(work_, last_);
    if (!source) return nullptr;
    last_ = source->id;
    auto video = std::make_unique<Video>();
    video->id = source->id;
    video->path = source->path;
    video->sha256 = source->sha256;
    return video;
  }

 private:
  Store& store_;
  Work work_;
  int64_t last_ = 0;
};

PipelineLimits limits_of(const WorkerConfig& workers) {
  const int64_t cores = std::max<int64_t>(1, std::thread::hardware_concurrency());
  return {.threads = workers.threads ? workers.threads : cores,
          .queue = workers.queue,
          .memory = static_cast<int64_t>(workers.memory_gib * (1 << 30))};
}

/// "  analyse 12.3 s, at most 2 at a time; split 0.01 s, ...", of all threads together.
std::string uses_line(const std::vector<StageUse>& uses) {
  std::string line;
  for (const StageUse& use : uses)
    line += (line.empty() ? "  " : "; ") + use.name + " " + trainer::format_number(use.seconds) +
            " s, at most " + std::to_string(use.most_threads) + " at a time";
  return line;
}

using Stages = std::vector<std::shared_ptr<Stage>>;

class Runner {
 public:
  Runner(Store& store, const Config& config, std::ostream& out, bool terminal, int64_t listing)
      : store_(store), config_(config), out_(out), terminal_(terminal), listing_(listing) {}

  /// Sends every video that needs the work through `stages`; returns when none needs it any more,
  /// whoever did it.
  void run(Work work, const std::string& what, const Stages& stages) {
    Meter meter(out_, terminal_, what, store_.remaining(work));
    for (;;) {
      const auto uses = run_pipeline(stages, limits_of(config_.workers), Feed(store_, work),
                                     [&](const Video& video) {
                                       store_.release(video.id);
                                       meter.add(video);
                                     });
      if (uses.back().videos > 0) meter.line(uses_line(uses));
      covered_ = store_.listings();
      const int64_t left = store_.remaining(work);
      if (left == 0) return;
      require(store_.shared(), left, " videos cannot be ", what);
      std::this_thread::sleep_for(std::chrono::milliseconds(200));  // others have them
    }
  }

  /// What follows from finished work, done by one process.
  void once(const std::string& name, const std::function<void()>& body) {
    store_.once(name, listing_, covered_, body);
  }

 private:
  Store& store_;
  const Config& config_;
  std::ostream& out_;
  bool terminal_;
  int64_t listing_, covered_ = 0;
};

/// Removes what killed runs were in the middle of writing: it lies under AtomicFile's temporary
/// names. Of clips, which other processes may be writing now, what none has written to for `age`.
void remove_unfinished(const fs::path& output, std::chrono::duration<double> age) {
  std::vector<fs::path> unfinished;
  for (const auto& entry : fs::recursive_directory_iterator(output)) {
    const std::string name = entry.path().filename().string();
    const std::string folder = entry.path().parent_path().filename().string();
    if (name.front() != '.' || name.find(".tmp-") == std::string::npos || !entry.is_regular_file())
      continue;
    const bool leased = folder == "videos" || folder == "frame_scores" || folder == "latents" ||
                        folder == "text_embeds";
    if (!leased || fs::file_time_type::clock::now() - entry.last_write_time() >= age)
      unfinished.push_back(entry.path());
  }
  for (const fs::path& path : unfinished) fs::remove(path);
}

std::unique_ptr<Database> open_database(const Config& config) {
  return config.store.empty() ? open_sqlite(fs::path(config.output) / "curate.sqlite")
                              : open_postgres(config.store);
}

/// A database knows its folder, a file lies in its own.
std::string settings_of(const Config& config) {
  return result_settings(config) +
         (config.store.empty() ? "" : " in " + fs::weakly_canonical(config.output).string());
}

}  // namespace

void curate(const Config& config, std::ostream& out, bool terminal) {
  at::set_num_threads(1);  // the stages' own threads fill the machine
  const fs::path output = config.output;
  fs::create_directories(output / "videos");
  Store store(open_database(config), settings_of(config), config.lease_s);
  const LeaseKeeper keeper(store, config.lease_s);
  const std::chrono::duration<double> dead(store.shared() ? config.lease_s / 2 : 0);
  if (!store.shared()) remove_unfinished(output, dead);
  Listing listing;  // alone, as archives are unpacked here
  store.alone([&] { listing = list_inputs(config.inputs, output / "unpacked"); });
  require(!listing.videos.empty(), "inputs: no video files there");
  const int64_t number = store.list(listing.videos);
  out << listing.videos.size() << " videos listed, " << listing.other_files
      << " other files passed over\n";
  Runner runner(store, config, out, terminal, number);
  runner.run(Work::kProbe, "probed", {std::make_shared<Probe>(store)});
  runner.once("duplicate files", [&] { store.mark_duplicates(); });
  Stages analysis = {std::make_shared<Analyse>(config.split)};
  if (config.frame_scores)
    analysis.push_back(std::make_shared<SaveFrameScores>(output / "frame_scores"));
  analysis.push_back(std::make_shared<Split>(config.split));
  analysis.push_back(std::make_shared<Filter>(config.filter));
  analysis.push_back(std::make_shared<Save>(store));
  runner.run(Work::kAnalyse, "analysed", analysis);
  runner.once("near duplicates", [&] { drop_near_duplicates(store, config.dedup.near_bits); });
  if (config.filter.max_text < 1)
    runner.run(Work::kText, "searched for text",
               {std::make_shared<TextOverlay>(store, config.filter.max_text)});
  if (!config.aesthetic.model.empty())
    runner.run(Work::kAesthetic, "scored", {std::make_shared<Aesthetic>(store, config.aesthetic)});
  if (!config.dedup.model.empty()) {
    runner.run(Work::kEmbed, "embedded", {std::make_shared<Embed>(store, config.dedup)});
    runner.once("semantic duplicates", [&] { drop_semantic_duplicates(store, config); });
  }
  runner.run(Work::kWrite, "written", {std::make_shared<Write>(store, output, config.clips)});
  if (!config.captions.model.empty())
    runner.run(Work::kCaption, "captioned",
               {std::make_shared<Caption>(store, output, config.captions)});
  if (!config.captions.endpoint.empty())
    runner.run(Work::kCaption, "captioned",
               {std::make_shared<EndpointCaption>(store, output, config.captions)});
  if (!config.latents.tokenizer.empty())
    runner.run(Work::kLatents, "encoded",
               {std::make_shared<Latents>(store, output, config.latents)});
  if (!config.text_embeds.model.empty())
    runner.run(Work::kTextEmbeds, "captions embedded",
               {std::make_shared<TextEmbeds>(store, config)});
  runner.once("outputs", [&] {
    remove_unfinished(output, dead);
    const Account result = account(store);
    publish(store, config, result);
    write_shards(store, config);
    write_metadata_tree(store, config, result);
    write_tables(store, config);
    write_cosmos3(store, config);
    write_report(store, config, result);
  });
  out << account(store).table() << "the sums agree; " << (output / "report.html").string() << '\n';
}

}  // namespace cosmos::curate
