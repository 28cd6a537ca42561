// How a run begins and what it leaves: resuming, saving, the report.

#include <torch/version.h>

#include "trainer/loop/trainer.h"

namespace cosmos::trainer {
namespace fs = std::filesystem;
namespace {

// "trainer.optimizer.lr: 0.0001 -> 0.0002" for every setting in which two configs differ.
void list_changes(const Json& before, const Json& after, const std::string& path,
                  std::vector<std::string>& changes) {
  if (before.is_object() && after.is_object()) {
    Json keys = before;
    keys.update(after);
    for (const auto& [key, ignored] : keys.items())
      list_changes(before.value(key, Json()), after.value(key, Json()),
                   modules::join_path(path, key), changes);
  } else if (before != after) {
    changes.push_back(path + ": " + before.dump() + " -> " + after.dump());
  }
}

}  // namespace

Json Trainer::full_config() const {
  Json config = resolved(config_);
  config["recipe"].update(recipe_->resolved_config());
  return config;
}

TrainState Trainer::state() {
  return {.model = *model_,
          .recipe = *recipe_,
          .optimizer = *optimizer_,
          .ema = ema_.get(),
          .sharded = parallel_.sharded(),
          .fp8 = fp8_.get(),
          .rank = parallel_.rank(),
          .ranks = parallel_.ranks()};
}

fs::path Trainer::checkpoint_to_resume() {
  if (options_.resume == "auto") return checkpoints_.newest();
  if (options_.resume == "never") {
    require(!checkpoints_.any(), folder_.dir().string(),
            ": holds checkpoints of an earlier run; name another run.dir, or resume it");
    return {};
  }
  checkpoints_.verify(options_.resume);
  return options_.resume;
}

void Trainer::go_on_from(const fs::path& checkpoint, const Json& config) {
  const Json manifest = read_manifest(checkpoint);
  load_state(checkpoint, state());
  step_ = manifest.at("step").get<int64_t>();
  if (manifest.contains("losses")) guard_.load_state(manifest["losses"]);
  const int64_t batch = samples_per_step();
  const int64_t next = manifest.value("next_sample", step_ * batch);
  data_offset_ = (next + batch - 1) / batch - step_;
  checkpoints_.resumed(step_, checkpoint);
  folder_.log("resumed after step " + std::to_string(step_) + " from " + checkpoint.string());
  if (next != step_ * batch)
    folder_.log("the data goes on with sample " + std::to_string((step_ + data_offset_) * batch) +
                ": steps were of another number of samples before, now they are of " +
                std::to_string(batch));
  std::vector<std::string> changes;
  list_changes(manifest.value("config", Json()), config, "", changes);
  for (const auto& change : changes) folder_.log("changed since the checkpoint: " + change);
}

void Trainer::start() {
  const Json config = full_config();
  if (const fs::path from = checkpoint_to_resume(); !from.empty()) go_on_from(from, config);
  first_step_ = step_;
  folder_.open(config, step_);
  describe_run();
  if (step_ >= config_.trainer.steps)
    folder_.log("nothing to do: step " + std::to_string(step_) + " of " +
                std::to_string(config_.trainer.steps) + " is done; raise trainer.steps to go on");
  model_->train();
  parallel_.texts("");  // none watches the others while they still load
  start_watchdog();
}

void Trainer::describe_run() {
  int64_t parameters = 0, trained = 0;
  const FullyShard::WholeShapes shapes(parallel_.sharded());
  for (const Tensor& p : model_->parameters()) {
    parameters += p.numel();
    if (p.requires_grad()) trained += p.numel();
  }
  const TrainerConfig& t = config_.trainer;
  facts_ = {
      {"model", model_->class_name()},    {"parameters", format_count(parameters)},
      {"trained", format_count(trained)}, {"precision", t.precision},
      {"device", device_.str()},          {"samples per step", std::to_string(samples_per_step())},
      {"seed", std::to_string(t.seed)},   {"threads", std::to_string(at::get_num_threads())},
      {"LibTorch", TORCH_VERSION}};
  if (parallel_.ranks() > 1) facts_.emplace_back("ranks", std::to_string(parallel_.ranks()));
  if (first_step_ > 0) facts_.emplace_back("resumed after step", std::to_string(first_step_));
  folder_.log(model_->class_name() + ": " + format_count(parameters) + " parameters, " +
              format_count(trained) + " trained; " + t.precision + " on " + device_.str() + ", " +
              std::to_string(at::get_num_threads()) + " threads" +
              (parallel_.ranks() > 1 ? ", " + std::to_string(parallel_.ranks()) + " ranks" : "") +
              ", LibTorch " TORCH_VERSION);
}

void Trainer::save() {
  Json info = {{"config", full_config()},
               {"seed", config_.trainer.seed},
               {"next_sample", (step_ + data_offset_) * samples_per_step()},
               {"libtorch", TORCH_VERSION}};
  info.update(validated_);
  if (guard_.watches_spikes()) info["losses"] = guard_.state();
  checkpoints_.save(step_, info, [&] {
    {
      const Ema::Use averages(ema_.get());
      const torch::NoGradGuard no_grad;
      recipe_->before_save();
    }
    return state_files(state());
  });
}

void Trainer::report_failures() {
  const auto& failures = loader_->failures();
  for (; failures_reported_ < failures.size(); ++failures_reported_) {
    const Failure& failure = failures[failures_reported_];
    folder_.log("skipped " + failure.name + ": " + failure.reason);
  }
}

void Trainer::finish_report() {
  if (step_ == 0) return;  // nothing to show
  try {
    write_report(folder_.dir(), facts_);
  } catch (const std::exception& error) {
    folder_.log(std::string("no report.html: ") + error.what());
  }
}

}  // namespace cosmos::trainer
