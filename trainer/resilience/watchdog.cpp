#include "trainer/resilience/watchdog.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <tuple>
#include <unistd.h>

#include "ops/core/error.h"
#include "trainer/report/console.h"
#include "trainer/resilience/stacks.h"

namespace cosmos::trainer {
namespace fs = std::filesystem;
using std::chrono::milliseconds;

namespace {

constexpr int kAborted = 134;             // 128 + SIGABRT, without a core of all that memory
constexpr std::size_t kBeatBytes = 1024;  // one write, which readers see as a whole

std::string host_name() {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  return name;
}

std::string describe(const FlightRecord::Place& place) {
  const std::string step = "step " + std::to_string(place.step + 1);
  return (place.operation.empty() ? "in no collective" : "in " + place.operation) +
         " (its number " + std::to_string(place.collectives) + "), " + place.phase + " of " + step;
}

/// False while the file is not there or half written.
bool read_beat(const fs::path& file, Watchdog::Beat& beat) {
  std::ifstream in(file);
  std::string line;
  if (!std::getline(in, line)) return false;
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return false;
  beat.beat = json.value("beat", int64_t{0});
  beat.progress = json.value("progress", int64_t{0});
  beat.place = {.step = json.value("step", int64_t{0}),
                .phase = json.value("phase", ""),
                .operation = json.value("operation", ""),
                .collectives = json.value("collectives", int64_t{0})};
  beat.host = json.value("host", "");
  beat.pid = json.value("pid", int64_t{0});
  return true;
}

/// A stopped process cannot end itself. Only one that runs this very program, on this machine.
void end_stopped(const Watchdog::Beat& beat) {
  std::error_code error;
  const std::string proc = "/proc/" + std::to_string(beat.pid);
  if (beat.pid <= 1 || beat.pid == ::getpid() || beat.host != host_name()) return;
  const fs::path program = fs::read_symlink(proc + "/exe", error);
  if (!error && program == fs::read_symlink("/proc/self/exe", error) && !error)
    ::kill(static_cast<pid_t>(beat.pid), SIGKILL);
}

}  // namespace

Watchdog::Watchdog(FlightRecord& record, WatchdogOptions options)
    : record_(record), options_(std::move(options)) {
  interval_ = std::clamp(options_.timeout / 20, milliseconds(20), milliseconds(500));
  fs::create_directories(options_.dir);
  std::error_code ignored;  // of an earlier hang
  fs::remove(fs::path(file(options_.rank)) += ".txt", ignored);
  fd_ = ::open(file(options_.rank).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  require(fd_ >= 0, file(options_.rank).string(), ": cannot write: ", std::strerror(errno));
  prepare_stacks();
  thread_ = std::thread([this] { run(); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
  ::close(fd_);
}

fs::path Watchdog::file(int64_t rank) const {
  return options_.dir / ("rank-" + std::to_string(rank));
}

void Watchdog::run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    write_beat();
    const auto now = Clock::now();
    if (record_.progress() != progress_) {
      progress_ = record_.progress();
      progress_at_ = now;
      seen_.clear();
    } else if (now - progress_at_ > options_.timeout / 2) {
      look(now);
      if (now - progress_at_ > options_.timeout && all_idle(now)) return report(now);
    }
    wake_.wait_for(lock, interval_);
  }
}

void Watchdog::write_beat() {
  const FlightRecord::Place place = record_.place();
  const Json json = {{"beat", ++beat_},
                     {"progress", record_.progress()},
                     {"step", place.step},
                     {"phase", place.phase},
                     {"operation", place.operation},
                     {"collectives", place.collectives},
                     {"host", host_name()},
                     {"pid", ::getpid()}};
  std::string text = json.dump();
  text.resize(std::max(text.size(), kBeatBytes - 1), ' ');
  text += '\n';
  // A full disk must not look like a hang, nor end the training.
  (void)!::pwrite(fd_, text.data(), text.size(), 0);
}

void Watchdog::look(Clock::time_point now) {
  if (seen_.empty()) seen_.assign(options_.ranks, {.beat = {}, .beat_at = now, .progress_at = now});
  for (int64_t r = 0; r < options_.ranks; ++r) {
    Seen& seen = seen_[r];
    Beat beat = seen.beat;
    beat.rank = r;
    if (!read_beat(file(r), beat)) continue;
    const bool first = seen.beat.beat == 0;
    if (!first && beat.beat != seen.beat.beat) seen.beat_at = now;
    if (!first && beat.progress != seen.beat.progress) seen.progress_at = now;
    seen.beat = beat;
  }
}

/// No other rank has got on while this one looked, half of the timeout.
bool Watchdog::all_idle(Clock::time_point now) const {
  return std::all_of(seen_.begin(), seen_.end(), [&](const Seen& seen) {
    return now - seen.progress_at > options_.timeout / 2 - 2 * interval_;
  });
}

std::string Watchdog::blame(const std::vector<Beat>& beats, const std::vector<bool>& stopped) {
  const auto first = [&](bool value) {
    return static_cast<std::size_t>(std::find(stopped.begin(), stopped.end(), value) -
                                    stopped.begin());
  };
  // A stopped rank's last heartbeat may be a little older than its last operation: what the others
  // wait for tells that.
  if (const std::size_t i = first(true); i < beats.size())
    return "rank " + std::to_string(beats[i].rank) + " is stuck: its process (" + beats[i].host +
           ", pid " + std::to_string(beats[i].pid) + ") does not run; it was last " +
           describe(beats[i].place) +
           (first(false) < beats.size() ? "; the others wait " + describe(beats[first(false)].place)
                                        : "");
  const auto behind =
      std::min_element(beats.begin(), beats.end(), [](const Beat& a, const Beat& b) {
        const auto order = [](const Beat& x) {
          return std::tuple(x.place.collectives, !x.place.operation.empty());
        };
        return order(a) < order(b);
      });
  const bool same = std::all_of(beats.begin(), beats.end(), [&](const Beat& beat) {
    return beat.place.collectives == behind->place.collectives &&
           beat.place.operation.empty() == behind->place.operation.empty();
  });
  if (same && beats.size() > 1)
    return "all ranks are stuck, each " + describe(behind->place) +
           "; look at the network between them";
  return "rank " + std::to_string(behind->rank) + " is stuck: " + describe(behind->place);
}

void Watchdog::report(Clock::time_point now) {
  std::vector<Beat> beats;
  std::vector<bool> stopped;
  int64_t first_left = -1;
  for (int64_t r = 0; r < options_.ranks; ++r) {
    beats.push_back(seen_[r].beat);
    beats.back().rank = r;
    stopped.push_back(r != options_.rank && now - seen_[r].beat_at > options_.timeout / 4);
    if (!stopped.back() && first_left < 0) first_left = r;
  }
  const std::string line =
      "no rank got on for " +
      format_number(std::chrono::duration<double>(now - progress_at_).count()) + " s; " +
      blame(beats, stopped) + "; records of all ranks: " + options_.dir.string();
  const fs::path own = fs::path(file(options_.rank)) += ".txt";
  std::ofstream(own) << line << "\n\ncollectives\n" << record_.text() << std::flush;
  append_stacks(own);
  if (options_.rank == first_left) {
    for (std::size_t i = 0; i < beats.size(); ++i) {
      if (!stopped[i]) continue;
      std::ofstream(fs::path(file(static_cast<int64_t>(i))) += ".txt")
          << line << "\n\nits process does not run; last " << describe(beats[i].place) << '\n';
      end_stopped(beats[i]);
    }
    options_.print("watchdog: " + line);
  }
  options_.end ? options_.end() : ::_exit(kAborted);
}

}  // namespace cosmos::trainer
