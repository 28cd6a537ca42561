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
          .sharded = parallel_.sharded()};
}

fs::path Trainer::checkpoint_to_resume() {
  const auto report = [this](const std::string& text) { folder_.log(text); };
  if (options_.resume == "never") {
    require(checkpoints_.steps().empty(), folder_.dir().string(),
            ": holds checkpoints of an earlier run; name another run.dir, or resume it");
    return {};
  }
  if (options_.resume != "auto") {
    verify_checkpoint(options_.resume);
    return options_.resume;
  }
  const auto newest = checkpoints_.newest(report);
  require(newest || checkpoints_.steps().empty(), folder_.dir().string(),
          ": no checkpoint is intact; start again in another run.dir");
  return newest.value_or(fs::path());
}

void Trainer::start() {
  const Json config = full_config();
  // Looked for and verified once, not by every rank.
  const fs::path from = parallel_.from_first([&] { return checkpoint_to_resume().string(); });
  if (!from.empty()) {
    const Json manifest = read_manifest(from);
    load_state(from, state());
    step_ = manifest.at("step").get<int64_t>();
    const bool own =
        fs::exists(checkpoints_.path(step_)) && fs::equivalent(from, checkpoints_.path(step_));
    if (own) saved_step_ = step_;
    parallel_.on_first([&] {
      for (const int64_t later : checkpoints_.set_aside_after(step_))
        folder_.log("set aside: checkpoint of step " + std::to_string(later));
    });
    folder_.log("resumed after step " + std::to_string(step_) + " from " + from.string());
    std::vector<std::string> changes;
    list_changes(manifest.value("config", Json()), config, "", changes);
    for (const auto& change : changes) folder_.log("changed since the checkpoint: " + change);
  }
  first_step_ = step_;
  folder_.open(config, step_);
  describe_run();
  if (step_ >= config_.trainer.steps)
    folder_.log("nothing to do: step " + std::to_string(step_) + " of " +
                std::to_string(config_.trainer.steps) + " is done; raise trainer.steps to go on");
  model_->train();
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

bool Trainer::save() {
  if (saved_step_ == step_) return true;
  const Json info = {{"config", full_config()},
                     {"seed", config_.trainer.seed},
                     {"next_sample", step_ * samples_per_step()},
                     {"libtorch", TORCH_VERSION}};
  try {
    {
      const Ema::Use averages(ema_.get());
      const torch::NoGradGuard no_grad;
      recipe_->before_save();
    }
    const WholeTensors tensors = gather_tensors(state());
    const FullyShard::Whole whole(parallel_.sharded());
    parallel_.on_first([&] {
      checkpoints_.save(step_, info,
                        [&](const fs::path& dir) { save_state(dir, state(), tensors); });
    });
    saved_step_ = step_;
    folder_.log("saved " + checkpoints_.path(step_).string());
    return true;
  } catch (const std::exception& error) {
    folder_.log("step " + std::to_string(step_) + ": checkpoint not saved: " + error.what() +
                "; the training itself is unharmed");
    return false;
  }
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
