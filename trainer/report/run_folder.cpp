#include "trainer/report/run_folder.h"

#include <ctime>
#include <vector>

#include "modules/hub/atomic_file.h"
#include "ops/core/error.h"

namespace cosmos::trainer {
namespace fs = std::filesystem;
namespace {

std::string now() {
  const std::time_t t = std::time(nullptr);
  std::tm parts{};
  localtime_r(&t, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &parts);
  return text;
}

// Lines up to `step`. A last line cut short by a kill is not JSON and goes too.
std::string lines_until(const fs::path& file, int64_t step) {
  std::ifstream in(file);
  std::string kept, line;
  while (std::getline(in, line)) {
    const Json row = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (row.is_object() && row.value("step", int64_t{0}) <= step && !in.eof()) kept += line + "\n";
  }
  return kept;
}

}  // namespace

RunFolder::RunFolder(fs::path dir, Console* console) : dir_(std::move(dir)), console_(console) {
  std::error_code error;
  fs::create_directories(dir_, error);
  require(!error && fs::is_directory(dir_), dir_.string(),
          ": cannot create the run folder: ", error.message());
  log_.open(dir_ / "log.txt", std::ios::app);
  require(log_.good(), (dir_ / "log.txt").string(), ": cannot be written");
}

void RunFolder::open(const Json& config, int64_t step) {
  modules::write_json(dir_ / "config.json", config);
  const fs::path file = dir_ / "metrics.jsonl";
  if (fs::exists(file)) modules::write_file(file, step > 0 ? lines_until(file, step) : "");
  metrics_.open(file, std::ios::app);
  require(metrics_.good(), file.string(), ": cannot be written");
  events_ = std::make_unique<EventFile>(dir_ / "tensorboard", step);
}

void RunFolder::metrics(const Json& row) {
  metrics_ << row.dump() << '\n' << std::flush;
  const auto step = row.at("step").get<int64_t>();
  std::vector<Scalar> scalars;
  for (const auto& [key, value] : row.items())
    if (value.is_number() && key != "step") scalars.push_back({key, value.get<float>()});
  if (auto by = row.find("by"); by != row.end())
    for (const auto& [label, entry] : by->items())
      scalars.push_back({"by/" + label, entry.at("mean").get<float>()});
  const bool events_good = events_->write(step, scalars);
  if ((!metrics_.good() || !events_good) && !write_failed_) {
    write_failed_ = true;
    log("warning: metrics cannot be written (disk full?); training goes on without them");
  }
  metrics_.clear();
}

void RunFolder::note(const std::string& text) {
  log_ << now() << "  " << text << '\n' << std::flush;
  log_.clear();
}

void RunFolder::log(const std::string& text) {
  note(text);
  if (console_) console_->line(text);
}

int64_t peak_memory_bytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word)
    if (int64_t kib = 0; word == "VmHWM:" && status >> kib) return kib * 1024;
  return 0;
}

}  // namespace cosmos::trainer
