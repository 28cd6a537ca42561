#pragma once

// What a run is: {"base": "other.json", "recipe": {...}, "trainer": {...}, "run": {...}}.
//
// One list of fields per struct (modules/core/fields.h) drives reading, --check, the run folder's
// config.json and configs/schema.json, so a setting is added in one place.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "modules/core/fields.h"
#include "modules/fp8/config.h"

namespace cosmos::trainer {

struct OptimizerConfig {
  double lr = 1e-4;
  std::vector<double> betas = {0.9, 0.99};
  double eps = 1e-8;
  double weight_decay = 0.1;
  bool decay_1d = false;
  std::string moments = "fp32";
  std::map<std::string, double> lr_scale;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("lr", lr, "peak learning rate of AdamW");
    v("betas", betas, "decay of AdamW's first and second moment");
    v("eps", eps, "added to the root of the second moment");
    v("weight_decay", weight_decay, "decoupled weight decay, times the learning rate");
    v("decay_1d", decay_1d, "also decay biases and norm weights (parameters with one dimension)");
    v("lr_scale", lr_scale,
      "factors on lr for parameters whose name begins with a key (the longest that fits): "
      "{\"model.visual.\": 0.1}");
    v("moments", moments, "fp32; int8: AdamW's moments in 2 bytes a parameter in place of 8");
  }
};

struct ScheduleConfig {
  std::string kind = "constant";
  int64_t warmup_steps = 0;
  double min_factor = 0;
  int64_t decay_steps = 0;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("kind", kind, "constant, linear or cosine: how the learning rate falls after the warm-up");
    v("warmup_steps", warmup_steps, "steps of linear rise from lr / warmup_steps to lr");
    v("min_factor", min_factor, "fraction of lr that is left at the end");
    v("decay_steps", decay_steps, "step at which the fall ends; 0 = trainer.steps");
  }
};

struct EmaConfig {
  std::string kind = "none";
  double decay = 0.999;
  double rate = 0.1;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("kind", kind,
      "none, constant or power: average of the weights that validation and samples use");
    v("decay", decay, "constant: average = decay * average + (1 - decay) * weights");
    v("rate", rate, "power: width of the average relative to the steps so far (Cosmos: 0.1)");
  }
};

struct ParallelConfig {
  int64_t shard = 0;
  int64_t replica = 1;
  int64_t context = 1;
  std::string context_attention = "auto";
  int64_t tensor = 1;
  bool sequence = true;
  int64_t expert = 1;
  int64_t pipeline = 1;
  std::string pipeline_schedule = "1f1b";
  int64_t pipeline_chunks = 2;
  bool reshard_after_forward = true;
  std::string offload = "none";

  template <typename Visitor>
  void fields(Visitor& v) {
    v("shard", shard,
      "ranks over which parameters, gradients and optimiser state are split; 0 = all that there "
      "are");
    v("replica", replica, "copies of the shards, each on `shard` x `context` ranks (HSDP)");
    v("context", context,
      "ranks that hold parts of the same samples' tokens (context parallelism); they share the "
      "weights' shards, too");
    v("context_attention", context_attention,
      "how attention sees the other ranks' tokens. all_to_all: each rank takes some heads, moves "
      "least, asks heads that `context` divides; ring: keys and values travel while it computes, "
      "any number of heads; all_gather: all keys of a layer at once, for fast links and short "
      "clips; auto: all_to_all where the heads divide, else ring");
    v("pipeline", pipeline,
      "stages of consecutive blocks, each on ranks of its own (pipeline parallelism); their "
      "micro-batches are those of gradient_accumulation");
    v("pipeline_schedule", pipeline_schedule,
      "1f1b: least memory and traffic; interleaved: every rank has pipeline_chunks runs of blocks, "
      "less idle time, more traffic; zero_bubble: as 1f1b, weight gradients fill the idle time");
    v("pipeline_chunks", pipeline_chunks, "interleaved: runs of blocks a rank");
    v("tensor", tensor,
      "ranks that hold slices of the same products, by heads and columns (tensor parallelism)");
    v("sequence", sequence,
      "with tensor above 1: split the tokens between the products, too (sequence parallelism); the "
      "same bytes move, fewer are kept for backward");
    v("expert", expert,
      "ranks between which the experts of mixture-of-experts blocks are split (expert "
      "parallelism); "
      "they read different samples, and share the shards of what is not an expert");
    v("reshard_after_forward", reshard_after_forward,
      "free a block's parameters between forward and backward; false: more memory, fewer gathers");
    v("offload", offload,
      "where this rank's shards and optimiser state are: none: on its device; host: in the "
      "machine's memory, blocks come when they run and updates are computed there; disk: in a "
      "file of trainer.offload_dir");
  }
};

struct CheckpointConfig {
  bool background = true;
  std::string writers = "auto";
  int64_t threads = 2;
  int64_t keep_every = 0;
  int64_t keep_best = 0;
  std::string second_dir;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("background", background,
      "write checkpoints while the training goes on, from a copy of the state; false: no copy, the "
      "training waits");
    v("writers", writers,
      "shared: every rank writes its part of each file; single: one rank a file, for file systems "
      "that cannot do that; auto: what a probe finds");
    v("threads", threads, "threads of each rank that write");
    v("keep_every", keep_every,
      "also keep checkpoints of steps that this number divides; 0 = none (see keep_checkpoints)");
    v("keep_best", keep_best, "also keep this many with the lowest val_loss at their step");
    v("second_dir", second_dir,
      "folder that gets a copy of every checkpoint, and is looked in, too, when a run goes on");
  }
};

struct ProfileConfig {
  int64_t from = 0;
  int64_t steps = 3;
  std::string path;
  bool shapes = false;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("from", from, "first step to record, as metrics.jsonl counts; 0 = none");
    v("steps", steps, "how many");
    v("path", path, "folder of the traces, a file a rank; empty: profile/ in run.dir");
    v("shapes", shapes, "also the shapes of operators' inputs");
  }
};

struct TrainerConfig {
  int64_t steps = 1000;
  int64_t micro_batch_size = 1;
  int64_t gradient_accumulation = 1;
  int64_t seed = 0;
  std::string precision = "fp32";
  modules::Fp8Config fp8;
  std::string device = "auto";
  double clip_norm = 1.0;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  EmaConfig ema;
  std::string activation_checkpointing = "none";
  int64_t selective_every = 2;
  std::string activation_offload = "none";
  std::string offload_dir;
  ParallelConfig parallel;
  std::string on_nonfinite = "stop";
  std::string on_spike = "ignore";
  double spike_sigmas = 8;
  double hang_timeout_s = 480;
  double stop_within_s = 0;
  bool deterministic = false;
  int64_t log_every = 10;
  int64_t validate_every = 0;
  int64_t validation_batches = 0;
  bool validate_first = false;
  int64_t sample_every = 0;
  int64_t save_every = 0;
  int64_t keep_checkpoints = 2;
  CheckpointConfig checkpoint;
  int64_t threads = 0;
  int64_t loader_threads = 1;
  double peak_tflops = 0;
  ProfileConfig profile;
  int64_t metrics_port = 0;

  /// Whether the model itself is bfloat16.
  bool low_precision() const { return precision == "bf16" || precision == "fp8"; }

  template <typename Visitor>
  void fields(Visitor& v) {
    v("steps", steps, "optimiser steps of the whole run");
    v("micro_batch_size", micro_batch_size, "samples that go through the model together");
    v("gradient_accumulation", gradient_accumulation, "micro-batches per optimiser step");
    v("seed", seed, "of sample order, noise, timesteps and initial weights");
    v("precision", precision,
      "fp32; bf16: bfloat16 model with float32 master weights; fp8: as bf16, with the products of "
      "its blocks in 8-bit numbers; fp64: for comparisons");
    v("fp8", fp8, "how products are scaled, and which, when precision is fp8");
    v("device", device, "auto (a GPU where there is one), cpu, cuda (each rank its own) or cuda:N");
    v("clip_norm", clip_norm, "gradients are scaled down to this global norm; 0 = never");
    v("optimizer", optimizer, "AdamW");
    v("schedule", schedule, "learning rate over the run");
    v("ema", ema, "exponential moving average of the weights");
    v("activation_checkpointing", activation_checkpointing,
      "none, full (recompute every block in backward), keep_attention (the same, but for the "
      "attention in it, whose results are kept) or selective (some blocks)");
    v("selective_every", selective_every, "selective: recompute every n-th block, keep the others");
    v("activation_offload", activation_offload,
      "where blocks' activations wait for backward: none: on the device; host: in the machine's "
      "memory, copied while others compute; disk: in a file of offload_dir");
    v("offload_dir", offload_dir,
      "folder of a fast disk for what is offloaded there; empty: offload/ in run.dir");
    v("parallel", parallel, "how the ranks of --nproc, torchrun, Slurm or mpirun share the work");
    v("on_nonfinite", on_nonfinite,
      "stop, skip or roll_back: what follows a loss or gradient that is NaN or infinite. skip "
      "leaves "
      "the step's update out; roll_back also takes the newest checkpoint's weights and goes on "
      "behind the step");
    v("on_spike", on_spike, "ignore, stop, skip or roll_back: the same for a loss spike");
    v("spike_sigmas", spike_sigmas,
      "a spike is a loss this many standard deviations above the mean of the last 128");
    v("hang_timeout_s", hang_timeout_s,
      "several ranks: when none gets on for so long, the stuck one is named and all end; 0 = "
      "never");
    v("stop_within_s", stop_within_s,
      "after SIGTERM (preemption) a step is abandoned between micro-batches when ending it would "
      "leave "
      "too little of this time to save; 0 = steps always end");
    v("deterministic", deterministic, "refuse operations that have no deterministic form");
    v("log_every", log_every, "steps between console lines; metrics.jsonl has every step");
    v("validate_every", validate_every, "steps between validations; 0 = only at the end");
    v("validation_batches", validation_batches, "micro-batches per validation; 0 = the whole set");
    v("validate_first", validate_first,
      "also before the first step: start_val_... beside the first loss");
    v("sample_every", sample_every, "steps between samples; 0 = only at the end");
    v("save_every", save_every, "steps between checkpoints; 0 = only at the end");
    v("keep_checkpoints", keep_checkpoints, "newest checkpoints that stay; 0 = all");
    v("checkpoint", checkpoint, "how checkpoints are written, and which more of them stay");
    v("threads", threads, "CPU threads of the computation; 0 = LibTorch's choice");
    v("loader_threads", loader_threads, "threads that read and decode samples ahead; 0 = none");
    v("peak_tflops", peak_tflops, "the machine's peak for the mfu metric; 0 = unknown");
    v("profile", profile, "what chosen steps do, for chrome://tracing and Perfetto");
    v("metrics_port", metrics_port,
      "the first rank answers Prometheus at http://127.0.0.1:PORT/metrics; 0 = nobody does");
  }
};

struct RunConfig {
  std::string dir = "runs/default";

  template <typename Visitor>
  void fields(Visitor& v) {
    v("dir", dir, "folder of this run: config, metrics, checkpoints, samples, report");
  }
};

struct Config {
  Json recipe = Json::object();  ///< {"type": ..., ...}: read by the recipe itself
  TrainerConfig trainer;
  RunConfig run;
  std::string source;  ///< file it came from, for messages

  template <typename Visitor>
  void fields(Visitor& v) {
    v("recipe", recipe, "the task: model, data and loss; `type` names it");
    v("trainer", trainer, "how to train");
    v("run", run, "where the results go");
  }
};

/// Reads `file`, the files it names as "base" (each overrides its base, objects merge key by key)
/// and then `overrides` ("trainer.steps=5", "recipe.model=a/b": a JSON value, or text as it
/// stands). Comments are allowed. Throws Error naming the file and setting.
Config load_config(const std::filesystem::path& file,
                   const std::vector<std::string>& overrides = {});

/// The same from JSON in memory; `source` names it in messages.
Config parse_config(const Json& json, const std::string& source);

/// Throws one Error that lists every setting with an impossible value, one a line.
void validate(const Config& config);

/// Every setting with its value, as config.json holds it.
Json resolved(const Config& config);

/// JSON Schema (draft 7) of a config file, for editors. Committed as configs/schema.json.
Json config_schema();

}  // namespace cosmos::trainer
