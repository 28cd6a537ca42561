#include "trainer/checkpoint/checkpoints.h"

#include <algorithm>
#include <sys/resource.h>
#include <utility>

#include "trainer/report/console.h"

namespace cosmos::trainer {
namespace fs = std::filesystem;
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// What went wrong in `fn`, "" when nothing did.
std::string error_in(const std::function<void()>& fn) {
  try {
    fn();
    return "";
  } catch (const std::exception& error) {
    const std::string text = error.what();
    return text.empty() ? "unknown error" : text.substr(0, text.find('\n'));
  }
}

Json to_json(const FileSums& sums) {
  Json json = Json::object();
  for (const auto& [name, sum] : sums) json[name] = {sum.bytes, sum.crc};
  return json;
}

FileSums from_json(const Json& json) {
  FileSums sums;
  for (const auto& [name, pair] : json.items())
    sums[name] = {pair[0].get<uint64_t>(), pair[1].get<uint32_t>()};
  return sums;
}

/// The first rank's that has one, with its number where there are several.
std::string first_error(const std::vector<std::string>& errors) {
  for (std::size_t rank = 0; rank < errors.size(); ++rank)
    if (!errors[rank].empty())
      return (errors.size() > 1 ? "rank " + std::to_string(rank) + ": " : "") + errors[rank];
  return "";
}

}  // namespace

Checkpoints::Checkpoints(const fs::path& run, const TrainerConfig& config,
                         const DataParallel& parallel, Log log, std::function<void()> moves)
    : config_(config.checkpoint),
      parallel_(parallel),
      log_(std::move(log)),
      moves_(std::move(moves)) {
  const Retention keep{
      .last = config.keep_checkpoints, .every = config_.keep_every, .best = config_.keep_best};
  stores_.emplace_back(run / "checkpoints", keep);
  if (!config_.second_dir.empty()) stores_.emplace_back(config_.second_dir, keep);
}

Checkpoints::~Checkpoints() {
  if (job_) job_->thread.join();
  if (sweeper_.joinable()) sweeper_.join();
}

void Checkpoints::save(int64_t step, const Json& info, const std::function<StateFiles()>& files) {
  if (saved_step_ == step || (job_ && job_->step == step)) return;
  settle();
  auto job = std::make_unique<Job>();
  job->step = step;
  job->info = info;
  job->begin = Clock::now();
  job->sums.resize(stores_.size());
  job->errors.resize(stores_.size());
  const std::string error = first_error(parallel_.texts(error_in([&] { prepare(*job, files); })));
  if (!error.empty()) return failed(step, error);
  const bool one_writer = one_writer_a_file();
  const std::string copied = error_in([&] {  // too little memory fails the save, not the training
    if (one_writer) gather_to_writers(job->files, *parallel_.world());
    if (config_.background) staging_.take(job->files);
  });
  if (!copied.empty()) job->errors.assign(stores_.size(), copied);
  job->blocked = seconds_since(job->begin);
  job_ = std::move(job);
  job_->thread = std::thread([this, &job = *job_] { write(job); });
  if (!config_.background) settle();
}

void Checkpoints::prepare(Job& job, const std::function<StateFiles()>& files) {
  if (sweeper_.joinable()) sweeper_.join();
  if (parallel_.first()) {
    stores_[0].begin(job.step);
    for (std::size_t i = 1; i < stores_.size(); ++i)
      job.errors[i] = error_in([&] { stores_[i].begin(job.step); });
  }
  job.files = files();
}

void Checkpoints::write(Job& job) {
  // The training's threads come first: on a CPU they need the same cores.
  if (config_.background) ::setpriority(PRIO_PROCESS, 0, 10);
  const std::string copies = error_in([&] { staging_.wait(); });
  for (std::size_t i = 0; i < stores_.size(); ++i) {
    if (!copies.empty()) job.errors[i] = copies;
    if (job.errors[i].empty())
      job.errors[i] = error_in([&] {
        job.sums[i] =
            write_files(stores_[i].work_path(job.step), job.files, config_.threads, &job.written);
      });
  }
  job.done = true;
}

void Checkpoints::poll() {
  if (job_ && !parallel_.any(!job_->done)) settle();
}

void Checkpoints::wait_for_writers() {
  int64_t seen = -1;
  for (int64_t round = 0; !job_->done; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(round < 100 ? 1 : 20));
    const int64_t before = std::exchange(seen, job_->written.load());
    if (moves_ && before != seen) moves_();
  }
  job_->thread.join();
}

void Checkpoints::settle() {
  if (!job_) return;
  const auto begin = Clock::now();
  wait_for_writers();
  Json mine = Json::array();
  for (std::size_t i = 0; i < stores_.size(); ++i)
    mine.push_back({job_->errors[i], to_json(job_->sums[i])});
  std::vector<FileSums> sums(stores_.size());
  std::vector<std::vector<std::string>> errors(stores_.size());
  for (const std::string& text : parallel_.texts(mine.dump())) {
    const Json all = Json::parse(text);
    for (std::size_t i = 0; i < stores_.size(); ++i) {
      errors[i].push_back(all[i][0]);
      add_sums(sums[i], from_json(all[i][1]));
    }
  }
  const std::unique_ptr<Job> job = std::move(job_);
  job->blocked += config_.background ? seconds_since(begin) : seconds_since(job->begin);
  std::vector<std::string> first;
  for (const auto& of_store : errors) first.push_back(first_error(of_store));
  commit(*job, sums, first);
  if (parallel_.first())
    sweeper_ = std::thread([stores = stores_] {
      for (const CheckpointStore& store : stores) error_in([&] { store.sweep(); });
    });
}

void Checkpoints::commit(const Job& job, const std::vector<FileSums>& sums,
                         const std::vector<std::string>& errors) {
  const auto finish = [&](std::size_t i) {
    return error_in([&] {
      parallel_.on_first([&] {
        if (errors[i].empty()) {
          stores_[i].commit(job.step, job.info, sums[i]);
        } else {
          stores_[i].abandon(job.step);
          fail(errors[i]);
        }
      });
    });
  };
  for (std::size_t i = 1; i < stores_.size(); ++i)
    if (const std::string error = finish(i); !error.empty())
      log_("step " + std::to_string(job.step) + ": no second copy of the checkpoint: " + error);
  if (const std::string error = finish(0); !error.empty()) return failed(job.step, error);
  good_ = true;
  saved_step_ = job.step;
  last_seconds_ = seconds_since(job.begin);
  log_("saved " + path(job.step).string() + " in " + format_number(last_seconds_) +
       " s; the training waited " + format_number(job.blocked) + " s");
}

void Checkpoints::failed(int64_t step, const std::string& error) {
  if (parallel_.first()) stores_[0].abandon(step);
  good_ = false;
  log_("step " + std::to_string(step) + ": checkpoint not saved: " + error +
       "; the training itself is unharmed");
}

bool Checkpoints::one_writer_a_file() {
  if (!parallel_.world() || config_.writers == "shared") return false;
  if (config_.writers == "single") return true;
  if (!probed_) {
    one_writer_ = !shared_writes_work(stores_[0].dir(), *parallel_.world());
    if (one_writer_)
      log_(stores_[0].dir().string() +
           ": ranks cannot write into one file side by side here; each file is written by one rank "
           "(trainer.checkpoint.writers)");
  }
  probed_ = true;
  return one_writer_;
}

bool Checkpoints::any() const {
  return std::any_of(stores_.begin(), stores_.end(),
                     [](const CheckpointStore& store) { return !store.steps().empty(); });
}

fs::path Checkpoints::newest() {
  const std::string list = parallel_.from_first([&] {
    std::vector<std::pair<int64_t, std::string>> found;  // newest first, the run's own before
    for (const CheckpointStore& store : stores_)
      for (const int64_t step : store.steps()) found.emplace_back(step, store.path(step).string());
    std::stable_sort(found.begin(), found.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    return Json(found).dump();
  });
  const Json candidates = Json::parse(list);
  for (const auto& candidate : candidates) {
    const fs::path path = candidate[1].get<std::string>();
    const std::string error = damage(path);
    if (error.empty()) return path;
    log_("skipping a damaged checkpoint: " + error);
  }
  require(candidates.empty(), stores_[0].dir().parent_path().string(),
          ": no checkpoint is intact; start again in another run.dir");
  return {};
}

void Checkpoints::verify(const fs::path& checkpoint) {
  const std::string error = damage(checkpoint);
  require(error.empty(), error);
}

std::string Checkpoints::damage(const fs::path& checkpoint) const {
  FileSums part;
  const std::string mine =
      error_in([&] { part = sum_part(checkpoint, parallel_.rank(), parallel_.ranks()); });
  FileSums sums;
  for (const std::string& text : parallel_.texts(Json{mine, to_json(part)}.dump())) {
    const Json pair = Json::parse(text);
    if (pair[0] != "") return pair[0];
    add_sums(sums, from_json(pair[1]));
  }
  return error_in([&] { parallel_.on_first([&] { check_sums(checkpoint, sums); }); });
}

void Checkpoints::resumed(int64_t step, const fs::path& from) {
  const auto own = [&] { return fs::exists(path(step)) && fs::equivalent(from, path(step)); };
  if (parallel_.from_first([&] { return own() ? "own" : ""; }) == "own") saved_step_ = step;
  parallel_.on_first([&] {
    for (const CheckpointStore& store : stores_)
      for (const int64_t later : store.set_aside_after(step))
        log_("set aside: checkpoint of step " + std::to_string(later));
  });
}

}  // namespace cosmos::trainer
