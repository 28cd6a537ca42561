#include "trainer/loop/trainer.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <sstream>

#include "modules/core/device.h"
#include "modules/hub/model_weights.h"
#include "trainer/loop/recompute.h"
#include "trainer/loop/validation.h"
#include "trainer/optim/schedule.h"
#include "trainer/resilience/gpu_errors.h"
#include "trainer/resilience/straggler.h"

namespace cosmos::trainer {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// The first rank writes the run's folder, the others logs of their own in it.
std::filesystem::path rank_folder(const std::string& run, int64_t rank) {
  const std::filesystem::path dir(run);
  return rank == 0 ? dir : dir / "ranks" / std::to_string(rank);
}

// Validation before the first step, told apart from later ones.
Json prefixed(const Json& metrics, const std::string& prefix) {
  Json renamed = Json::object();
  for (const auto& [key, value] : metrics.items()) renamed[prefix + key] = value;
  return renamed;
}

std::filesystem::path profile_file(const Config& config, int64_t rank) {
  const std::string& path = config.trainer.profile.path;
  const std::filesystem::path dir(path.empty() ? config.run.dir + "/profile" : path);
  return dir / ("rank-" + std::to_string(rank) + ".json");
}

void use_deterministic_algorithms() {
  at::Context& context = at::globalContext();
  context.setDeterministicAlgorithms(true, /*warn_only=*/false);
  context.setDeterministicCuDNN(true);
  context.setBenchmarkCuDNN(false);
  ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);  // before cuBLAS's first call
}

// Micro-batches with the same text look alike to the stages of a pipeline.
std::string shape_text(const Batch& batch) {
  std::ostringstream text;
  for (const auto& [name, tensor] : batch.tensors) text << name << tensor.sizes();
  return text.str();
}

// Every group of this run tells the record.
std::shared_ptr<Group> observed(std::shared_ptr<Group> world,
                                const std::shared_ptr<FlightRecord>& record) {
  if (world) world->set_observer(record);
  return world;
}

}  // namespace

Trainer::Trainer(Config config, std::shared_ptr<Recipe> recipe, TrainerOptions options)
    : config_(std::move(config)),
      recipe_(std::move(recipe)),
      options_(std::move(options)),
      device_(modules::choose_device(config_.trainer.device, config_.source + ": trainer.device",
                                     options_.local_rank)),
      parallel_(observed(options_.world, record_), config_.trainer.parallel),
      folder_(rank_folder(config_.run.dir, parallel_.rank()),
              parallel_.first() ? options_.console : nullptr),
      checkpoints_(
          config_.run.dir, config_.trainer, parallel_,
          [this](const std::string& text) { folder_.log(text); }, [this] { record_->moves(); }),
      guard_(config_.trainer.on_spike == "ignore" ? 0 : config_.trainer.spike_sigmas),
      profile_(config_.trainer.profile, profile_file(config_, parallel_.rank())) {
  const TrainerConfig& t = config_.trainer;
  trainer::validate(config_);
  if (t.threads > 0) at::set_num_threads(static_cast<int>(t.threads));
  if (t.deterministic) use_deterministic_algorithms();
  torch::manual_seed(static_cast<uint64_t>(t.seed));
  recipe_->set_device(device_);
  build_model();
  const NamedTensors parameters =
      parallel_.sharded() ? parallel_.sharded()->shards() : trainable_parameters(*model_);
  optimizer_ = std::make_unique<AdamW>(parameters, t.optimizer, away_);
  optimizer_->set_sum_over_shards(
      [this](const Tensor& x) { return parallel_.sum_over_shards(x.to(device_)).to(x.device()); });
  if (t.ema.kind != "none")
    ema_ = std::make_unique<Ema>(t.ema, optimizer_->masters(), parameters, away_);
  loader_ = std::make_unique<DataLoader>(recipe_->train_data(),
                                         LoaderOptions{.micro_batch_size = t.micro_batch_size,
                                                       .micro_batches = t.gradient_accumulation,
                                                       .rank = parallel_.data_rank(),
                                                       .world = parallel_.data_ranks(),
                                                       .seed = static_cast<uint64_t>(t.seed),
                                                       .workers = t.loader_threads});
  validation_ = recipe_->validation_data();
  if (t.metrics_port > 0 && parallel_.first())
    endpoint_ = std::make_unique<MetricsEndpoint>(t.metrics_port);
}

std::shared_ptr<AwayMemory> Trainer::away_memory(const std::string& place) const {
  const std::string& dir = config_.trainer.offload_dir;
  return make_away_memory(place, dir.empty() ? config_.run.dir + "/offload" : dir, device_);
}

/// What runs a block when its parameters are there: recomputation, offload of what it saves.
std::shared_ptr<modules::BlockRunner> Trainer::block_runner() {
  const TrainerConfig& t = config_.trainer;
  auto runner = make_recompute_runner(t.activation_checkpointing, t.selective_every);
  const auto memory = away_memory(t.activation_offload);
  if (!memory) return runner;
  activations_ = std::make_shared<ActivationOffload>(memory, std::move(runner));
  return activations_;
}

/// On several ranks none ever holds the whole model, where the recipe can do without.
void Trainer::build_model() {
  const TrainerConfig& t = config_.trainer;
  if (parallel_.shards()) model_ = recipe_->model_without_weights();
  const bool to_be_filled = model_ != nullptr;
  if (!model_) model_ = recipe_->model();
  const auto dtype = t.low_precision()       ? torch::kBFloat16
                     : t.precision == "fp64" ? torch::kFloat64
                                             : torch::kFloat32;
  modules::cast_model(*model_, dtype, device_);
  if (t.precision == "fp8") fp8_ = modules::apply_fp8(*model_, t.fp8);
  away_ = away_memory(t.parallel.offload);
  model_->set_block_runner(parallel_.shard(
      *model_, block_runner(), {.fp8 = t.fp8.gather ? fp8_.get() : nullptr, .away = away_}));
  if (!to_be_filled) return;
  FullyShard& sharded = *parallel_.sharded();
  const FullyShard::WholeShapes shapes(&sharded);
  const auto buffers = model_->named_buffers();
  recipe_->read_weights([&](const std::string& name, const Tensor& whole) {
    if (const Tensor* buffer = buffers.find(name))
      Tensor(*buffer).copy_(whole);
    else
      sharded.load(name, whole);
  });
}

RunResult Trainer::run() {
  start();
  RunResult outcome;
  try {
    while (step_ < config_.trainer.steps && !outcome.stopped) train_and_record(outcome);
    phase("save");
    checkpoints_.settle();
    watchdog_.reset();
  } catch (const std::exception& error) {
    folder_.note(error.what());  // main() prints it
    if (const std::string meaning = explain_gpu_error(error.what()); !meaning.empty())
      folder_.log(meaning);
    finish_report();
    throw;
  }
  finish_report();
  outcome.step = step_;
  outcome.finished = step_ == config_.trainer.steps;
  outcome.saved = checkpoints_.good();
  if (checkpoints_.saved_step() >= 0)
    outcome.checkpoint = checkpoints_.path(checkpoints_.saved_step());
  return outcome;
}

void Trainer::train_and_record(RunResult& outcome) {
  const TrainerConfig& t = config_.trainer;
  profile_.begin(step_ + 1);
  phase("validate");
  const Json before =
      step_ == 0 && t.validate_first ? prefixed(validate(), "start_") : Json::object();
  StepResult result = train_step();
  if (result.abandoned) {
    outcome.stopped = true;
    return save();
  }
  result.row.update(before);
  phase("validate");
  if (due(t.validate_every)) {
    const Json metrics = validate();
    if (metrics.contains("val_loss")) validated_ = {{"val_loss", metrics["val_loss"]}};
    result.row.update(metrics);
  } else {
    validated_.clear();
  }
  phase("sample");
  if (due(t.sample_every)) result.row.update(sample());
  phase("save");
  log(result);
  outcome.loss = result.loss;
  outcome.stopped = parallel_.any(options_.should_stop && options_.should_stop());
  if (due(t.save_every) || outcome.stopped)
    save();
  else
    checkpoints_.poll();
  end_profile();
}

void Trainer::end_profile() {
  record_->end_range();
  if (profile_.end(step_)) folder_.log("wrote " + profile_.file().string());
}

Trainer::StepResult Trainer::train_step() {
  StepResult result;
  const auto begin = Clock::now();
  phase("data");
  const std::vector<Batch> batches = loader_->next(step_ + data_offset_);
  result.data_seconds = seconds_since(begin);
  result.lr = config_.trainer.optimizer.lr *
              lr_factor(config_.trainer.schedule, config_.trainer.steps, step_);
  const Tensor sum = accumulate(batches, result);
  if (result.abandoned) return result;
  const Tensor loss = parallel_.mean(sum);
  count_bytes(result.row);
  phase("optimizer");
  const bool spike = guard_.watches_spikes() && guard_.is_spike(loss.item<double>());
  // A loss that is not finite leaves the update out, on the device.
  const Tensor norm = optimizer_step(result.lr, spike ? loss * std::nan("") : loss);
  result.loss = loss.item<double>();
  result.grad_norm = norm.item<double>();
  if (!std::isfinite(result.loss) || !std::isfinite(result.grad_norm))
    result.fault = "nonfinite";
  else if (spike)
    result.fault = "spike";
  if (result.fault.empty())
    guard_.accept(result.loss);
  else
    answer_fault(result, batches);
  ++step_;
  result.seconds = seconds_since(begin);
  return result;
}

// What each micro-batch's loss counts in the step's mean over micro-batches and ranks.
std::vector<double> Trainer::loss_shares(const std::vector<Batch>& batches) const {
  std::vector<double> shares;
  double total = 0;
  for (const Batch& batch : batches) {
    const auto weight = recipe_->loss_weight(batch);
    if (!weight)
      return std::vector<double>(batches.size(), 1.0 / static_cast<double>(batches.size()));
    shares.push_back(*weight);
    total += *weight;
  }
  total = parallel_.mean(torch::tensor(total, torch::kFloat64).to(device_)).item<double>();
  for (double& share : shares) share /= std::max(total, 1e-12);
  return shares;
}

Tensor Trainer::accumulate(const std::vector<Batch>& batches, StepResult& result) {
  const StepContext context{.step = step_, .seed = static_cast<uint64_t>(config_.trainer.seed)};
  LabelledMeans by_label;
  ScalarMeans metrics;
  Tensor total;
  if (step_ == 0) result.start = recipe_->start_metrics(to_device(batches[0], device_), context);
  const std::vector<double> shares = loss_shares(batches);
  const auto forward = [&](std::size_t i) {
    const Loss loss = recipe_->loss(to_device(batches[i], device_), context);
    Tensor share = loss.value * shares[i];
    total = total.defined() ? total + share.detach() : share.detach();
    metrics.add(loss.metrics);
    by_label.add(loss.by_label);
    return share;
  };
  if (Pipeline* pipeline = parallel_.pipeline()) {
    // Never left in the middle: messages are under way between its ranks.
    phase("pipeline");
    pipeline->step({.count = static_cast<int64_t>(batches.size()),
                    .shape = [&](int64_t i) { return shape_text(batches[i]); },
                    .prepare = [&](int64_t i) { recipe_->prepare(batches[i], context); },
                    .loss = forward});
    total = pipeline->from_last(total);
    if (config_.trainer.precision != "fp64") total = total.to(torch::kFloat32);
    optimizer_->collect_gradients();
  } else {
    for (std::size_t i = 0; i < batches.size(); ++i) {
      result.abandoned = i > 0 && stop_cannot_wait();
      if (result.abandoned) return total;
      phase("forward");
      const Tensor share = forward(i);
      phase("backward");
      backward(share, i + 1 == batches.size());
    }
  }
  metrics.write(result.row);
  by_label.write(result.row);
  result.row = parallel_.merge(result.row);
  recipe_->derive_metrics(result.row, "");
  return total;
}

void Trainer::backward(const Tensor& loss, bool last) {
  FullyShard* sharded = parallel_.sharded();
  if (sharded) sharded->set_reduce(last);
  loss.backward();
  if (sharded) sharded->finish_backward();
  optimizer_->collect_gradients();
}

/// What this rank holds when an update begins, and what its step moved.
void Trainer::count_bytes(Json& row) {
  if (const ContextPlan* context = parallel_.context()) {
    row["context_bytes"] = context->received_bytes() - context_bytes_;
    context_bytes_ = context->received_bytes();
  }
  if (const Pipeline* pipeline = parallel_.pipeline()) {
    row["pipeline_bytes"] = pipeline->sent_bytes() - pipeline_bytes_;
    pipeline_bytes_ = pipeline->sent_bytes();
  }
  if (activations_) {
    row["offloaded_bytes"] = activations_->moved_bytes() - offloaded_bytes_;
    offloaded_bytes_ = activations_->moved_bytes();
  }
  const FullyShard* sharded = parallel_.sharded();
  if (!sharded) return;
  FullyShard::Held held = sharded->held_bytes();
  (away_ ? held.away : held.device) += optimizer_->moment_bytes();
  row["resident_bytes"] = held.device;
  if (away_) row["away_bytes"] = held.away;
  const ShardTraffic now = sharded->traffic();
  row["gathered_bytes"] = now.gathered - traffic_.gathered;
  row["reduced_bytes"] = now.reduced - traffic_.reduced;
  traffic_ = now;
  const int64_t activations = parallel_.activation_bytes();
  row["activation_bytes_moved"] = activations - moved_;
  moved_ = activations;
}

int64_t Trainer::samples_per_step() const {
  const TrainerConfig& t = config_.trainer;
  return t.micro_batch_size * t.gradient_accumulation * parallel_.data_ranks();
}

Tensor Trainer::optimizer_step(double lr, const Tensor& loss) {
  if (fp8_) fp8_->advance([this](const Tensor& amax) { parallel_.max_over_ranks(amax); });
  return optimizer_->step(lr, config_.trainer.clip_norm, loss,
                          ema_ ? ema_->next(step_) : Average{});
}

void Trainer::log(const StepResult& result) {
  const TrainerConfig& t = config_.trainer;
  const double rate = static_cast<double>(samples_per_step()) / result.seconds;
  const double tflops = recipe_->flops_per_sample() * rate * 1e-12;
  Json row = result.row;
  row["step"] = step_;
  row["loss"] = result.loss;
  row["grad_norm"] = result.grad_norm;
  row["lr"] = result.lr;
  row["step_time_s"] = result.seconds;
  row["data_time_s"] = result.data_seconds;
  row["samples_per_s"] = rate;
  row["tokens_per_s"] = recipe_->tokens_per_sample() * rate;
  row["tflops_per_s"] = tflops;
  row["mfu"] = t.peak_tflops > 0 ? Json(tflops / t.peak_tflops) : Json(nullptr);
  row["peak_memory_bytes"] =
      device_.is_cpu() ? peak_memory_bytes() : modules::peak_device_bytes(device_);
  row["skipped_items"] = loader_->failures().size();
  for (const auto& [name, value] : result.start) {
    row[name] = value;
    folder_.log("first loss " + format_number(result.loss) + ", " + name + " " +
                format_number(value));
  }
  if (!result.fault.empty()) row["left_out"] = result.fault;
  if (step_ % t.log_every == 0) add_times(row);
  folder_.metrics(row);
  if (endpoint_) endpoint_->publish(row);
  report_failures();

  smooth_seconds_ =
      smooth_seconds_ > 0 ? 0.9 * smooth_seconds_ + 0.1 * result.seconds : result.seconds;
  std::string details = "loss " + format_number(result.loss) + "  lr " + format_number(result.lr) +
                        "  grad " + format_number(result.grad_norm) + "  " + format_number(rate) +
                        " samples/s";
  if (row.contains("val_loss"))
    details += "  val_loss " + format_number(row["val_loss"].get<double>());
  if (folder_.console())
    folder_.console()->progress(
        {.what = "step",
         .done = step_,
         .total = t.steps,
         .seconds_left = smooth_seconds_ * static_cast<double>(t.steps - step_),
         .details = details},
        step_ % t.log_every == 0 || step_ == t.steps);
}

/// Where the time of the steps since the last such row went.
void Trainer::add_times(Json& row) {
  const std::map<std::string, double> mine = record_->take_times();
  row["phase_s"] = mine;
  if (parallel_.ranks() == 1) return;
  row["overlap"] = record_->take_overlap();
  std::vector<std::map<std::string, double>> times;
  for (const std::string& text : parallel_.texts(Json(mine).dump()))
    times.push_back(Json::parse(text));
  row.update(slowest_rank(times));
}

bool Trainer::due(int64_t every) const {
  return step_ == config_.trainer.steps || (every > 0 && step_ % every == 0);
}

Json Trainer::validate() {
  if (!validation_) return Json::object();
  const Ema::Use averages(ema_.get());
  return validation_metrics(*recipe_, *model_, *validation_,
                            {.device = device_,
                             .batch_size = config_.trainer.micro_batch_size,
                             .max_batches = config_.trainer.validation_batches,
                             .context = {.step = step_,
                                         .seed = static_cast<uint64_t>(config_.trainer.seed),
                                         .training = false}},
                            [this](const std::string& text) { folder_.log(text); });
}

Json Trainer::sample() {
  const Ema::Use averages(ema_.get());
  const torch::NoGradGuard no_grad;
  const auto dir = folder_.dir() / "samples" / checkpoints_.path(step_).filename();
  Json files = Json::array();
  model_->eval();
  try {
    for (const auto& file : recipe_->write_samples(dir, step_))
      files.push_back(file.lexically_relative(folder_.dir()).generic_string());
  } catch (const std::exception& error) {
    folder_.log("step " + std::to_string(step_) + ": no samples: " + error.what());
  }
  model_->train();
  return files.empty() ? Json::object() : Json{{"samples", files}};
}

}  // namespace cosmos::trainer
