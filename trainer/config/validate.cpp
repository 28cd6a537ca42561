#include <algorithm>
#include <sstream>

#include "trainer/config/config.h"

namespace cosmos::trainer {
namespace {

// Collects every complaint, so that a config is mended in one go.
class Checker {
 public:
  explicit Checker(std::string source) : source_(std::move(source)) {}

  template <typename T>
  void check(bool good, const std::string& key, const T& got, const std::string& expected) {
    if (good) return;
    std::ostringstream line;
    line << source_ << ": " << key << ": expected " << expected << ", got " << got;
    errors_.push_back(line.str());
  }

  void at_least(int64_t minimum, const std::string& key, int64_t got) {
    check(got >= minimum, key, got, minimum == 0 ? "0 or more" : "1 or more");
  }

  void one_of(const std::vector<std::string>& choices, const std::string& key,
              const std::string& got) {
    if (std::find(choices.begin(), choices.end(), got) != choices.end()) return;
    std::string expected;
    for (const auto& choice : choices) expected += (expected.empty() ? "" : " | ") + choice;
    const std::string near = modules::nearest(got, choices);
    check(false, key, '"' + got + '"' + (near.empty() ? "" : " (did you mean " + near + "?)"),
          expected);
  }

  void finish() const {
    if (errors_.empty()) return;
    std::string all;
    for (const auto& line : errors_) all += (all.empty() ? "" : "\n") + line;
    throw Error(all);
  }

 private:
  std::string source_;
  std::vector<std::string> errors_;
};

void check_optimizer(Checker& c, const OptimizerConfig& o) {
  const std::string at = "trainer.optimizer.";
  c.check(o.lr > 0 && o.lr < 10, at + "lr", o.lr, "a number in (0, 10)");
  c.check(o.betas.size() == 2, at + "betas", o.betas.size(), "two numbers");
  for (double beta : o.betas)
    c.check(beta >= 0 && beta < 1, at + "betas", beta, "numbers in [0, 1)");
  c.check(o.eps > 0, at + "eps", o.eps, "a number above 0");
  c.check(o.weight_decay >= 0, at + "weight_decay", o.weight_decay, "0 or more");
  c.one_of({"fp32", "int8"}, at + "moments", o.moments);
  for (const auto& [prefix, scale] : o.lr_scale)
    c.check(scale >= 0 && scale < 1e6, at + "lr_scale." + prefix, scale, "0 or more");
}

void check_schedule(Checker& c, const TrainerConfig& t) {
  const ScheduleConfig& s = t.schedule;
  const std::string at = "trainer.schedule.";
  c.one_of({"constant", "linear", "cosine"}, at + "kind", s.kind);
  c.at_least(0, at + "warmup_steps", s.warmup_steps);
  c.check(s.warmup_steps <= t.steps, at + "warmup_steps", s.warmup_steps,
          "at most trainer.steps (" + std::to_string(t.steps) + ")");
  c.check(s.min_factor >= 0 && s.min_factor <= 1, at + "min_factor", s.min_factor,
          "a number in [0, 1]");
  c.at_least(0, at + "decay_steps", s.decay_steps);
}

void check_pipeline(Checker& c, const TrainerConfig& t) {
  const ParallelConfig& p = t.parallel;
  const std::string at = "trainer.parallel.";
  c.at_least(1, at + "pipeline", p.pipeline);
  c.one_of({"1f1b", "interleaved", "zero_bubble"}, at + "pipeline_schedule", p.pipeline_schedule);
  c.at_least(1, at + "pipeline_chunks", p.pipeline_chunks);
  c.check(t.gradient_accumulation >= p.pipeline, "trainer.gradient_accumulation",
          t.gradient_accumulation,
          "at least as many micro-batches as stages (" + at +
              "pipeline = " + std::to_string(p.pipeline) + ")");
  if (p.pipeline > 1 && p.pipeline_schedule == "interleaved")
    c.check(t.gradient_accumulation % std::max<int64_t>(1, p.pipeline) == 0,
            "trainer.gradient_accumulation", t.gradient_accumulation,
            "a multiple of " + at + "pipeline (" + std::to_string(p.pipeline) +
                ") with pipeline_schedule interleaved");
}

void check_fp8(Checker& c, const modules::Fp8Config& fp8) {
  const std::string at = "trainer.fp8.";
  c.one_of({"current", "delayed", "block"}, at + "scaling", fp8.scaling);
  c.at_least(1, at + "history", fp8.history);
  c.one_of({"e5m2", "e4m3"}, at + "gradient", fp8.gradient);
}

}  // namespace

void validate(const Config& config) {
  const TrainerConfig& t = config.trainer;
  Checker c(config.source);
  c.at_least(1, "trainer.steps", t.steps);
  c.at_least(1, "trainer.micro_batch_size", t.micro_batch_size);
  c.at_least(1, "trainer.gradient_accumulation", t.gradient_accumulation);
  c.at_least(0, "trainer.seed", t.seed);
  c.one_of({"fp32", "bf16", "fp8", "fp64"}, "trainer.precision", t.precision);
  check_fp8(c, t.fp8);
  c.check(t.clip_norm >= 0, "trainer.clip_norm", t.clip_norm, "0 (never) or more");
  check_optimizer(c, t.optimizer);
  if (t.precision == "fp64")
    c.one_of({"fp32"}, "trainer.optimizer.moments (with precision fp64)", t.optimizer.moments);
  check_schedule(c, t);
  c.one_of({"none", "constant", "power"}, "trainer.ema.kind", t.ema.kind);
  c.check(t.ema.decay >= 0 && t.ema.decay < 1, "trainer.ema.decay", t.ema.decay,
          "a number in [0, 1)");
  c.check(t.ema.rate > 0 && t.ema.rate < 0.28, "trainer.ema.rate", t.ema.rate,
          "a number in (0, 0.28)");
  c.one_of({"none", "full", "keep_attention", "selective"}, "trainer.activation_checkpointing",
           t.activation_checkpointing);
  c.one_of({"none", "host", "disk"}, "trainer.activation_offload", t.activation_offload);
  c.one_of({"none", "host", "disk"}, "trainer.parallel.offload", t.parallel.offload);
  c.at_least(1, "trainer.selective_every", t.selective_every);
  c.at_least(0, "trainer.parallel.shard", t.parallel.shard);
  c.at_least(1, "trainer.parallel.replica", t.parallel.replica);
  c.at_least(1, "trainer.parallel.context", t.parallel.context);
  c.one_of({"auto", "ring", "all_to_all", "all_gather"}, "trainer.parallel.context_attention",
           t.parallel.context_attention);
  c.at_least(1, "trainer.parallel.tensor", t.parallel.tensor);
  c.at_least(1, "trainer.parallel.expert", t.parallel.expert);
  c.one_of({"stop", "skip", "roll_back"}, "trainer.on_nonfinite", t.on_nonfinite);
  c.one_of({"ignore", "stop", "skip", "roll_back"}, "trainer.on_spike", t.on_spike);
  c.check(t.spike_sigmas > 0, "trainer.spike_sigmas", t.spike_sigmas, "a number above 0");
  c.check(t.hang_timeout_s >= 0, "trainer.hang_timeout_s", t.hang_timeout_s, "0 (never) or more");
  c.check(t.stop_within_s >= 0, "trainer.stop_within_s", t.stop_within_s, "0 (never) or more");
  check_pipeline(c, t);
  c.at_least(1, "trainer.log_every", t.log_every);
  c.at_least(0, "trainer.validate_every", t.validate_every);
  c.at_least(0, "trainer.validation_batches", t.validation_batches);
  c.at_least(0, "trainer.sample_every", t.sample_every);
  c.at_least(0, "trainer.save_every", t.save_every);
  c.at_least(0, "trainer.keep_checkpoints", t.keep_checkpoints);
  c.one_of({"auto", "shared", "single"}, "trainer.checkpoint.writers", t.checkpoint.writers);
  c.at_least(1, "trainer.checkpoint.threads", t.checkpoint.threads);
  c.at_least(0, "trainer.checkpoint.keep_every", t.checkpoint.keep_every);
  c.at_least(0, "trainer.checkpoint.keep_best", t.checkpoint.keep_best);
  c.at_least(0, "trainer.threads", t.threads);
  c.at_least(0, "trainer.loader_threads", t.loader_threads);
  c.check(t.peak_tflops >= 0, "trainer.peak_tflops", t.peak_tflops, "0 (unknown) or more");
  c.at_least(0, "trainer.profile.from", t.profile.from);
  c.at_least(1, "trainer.profile.steps", t.profile.steps);
  c.check(t.metrics_port >= 0 && t.metrics_port < 65536, "trainer.metrics_port", t.metrics_port,
          "a port below 65536, or 0 (off)");
  c.check(!config.run.dir.empty(), "run.dir", "\"\"", "a folder");
  c.check(config.recipe.contains("type") && config.recipe["type"].is_string(), "recipe.type",
          config.recipe.contains("type") ? modules::describe(config.recipe["type"]) : "nothing",
          "the name of a recipe");
  c.finish();
}

}  // namespace cosmos::trainer
