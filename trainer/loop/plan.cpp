#include "trainer/loop/plan.h"

#include <algorithm>
#include <c10/util/accumulate.h>
#include <fstream>
#include <map>
#include <set>
#include <torch/cuda.h>

#include "modules/core/init.h"
#include "ops/shard_copy/shard_copy.h"
#include "trainer/loop/data_parallel.h"
#include "trainer/report/console.h"

namespace cosmos::trainer {
namespace {

// MemAvailable of /proc/meminfo.
double available_memory() {
  std::ifstream info("/proc/meminfo");
  std::string word;
  while (info >> word)
    if (double kib = 0; word == "MemAvailable:" && info >> kib) return kib * 1024;
  return 0;
}

/// The part of a sample's bytes that one of the ranks that share it has.
double on_rank(const SampleBytes& bytes, const ParallelConfig& p) {
  const auto tensor = static_cast<double>(p.tensor), context = static_cast<double>(p.context);
  return (bytes.tokens / (p.sequence ? tensor : 1) + bytes.sliced / tensor + bytes.whole) / context;
}

/// Bytes of AdamW's moments a parameter; 8-bit codes have two float32 scales a block of 256.
double moment_bytes(const TrainerConfig& t) {
  return t.optimizer.moments == "int8" ? 2 + 8. / 256 : 8;
}

std::vector<std::string> make_advice(const Plan& plan, const TrainerConfig& t) {
  std::vector<std::string> advice;
  if (plan.available_bytes <= 0 || plan.total_bytes() <= plan.available_bytes) return advice;
  const auto saves = [&](const std::string& change, double bytes) {
    if (bytes > 0) advice.push_back(change + " saves " + format_bytes(bytes));
  };
  if (t.activation_checkpointing != "full")
    saves("trainer.activation_checkpointing=full",
          plan.activation_bytes > 0 ? 0.75 * plan.activation_bytes : 0);
  if (t.micro_batch_size > 1)
    saves("trainer.micro_batch_size=1 with trainer.gradient_accumulation=" +
              std::to_string(t.micro_batch_size * t.gradient_accumulation),
          plan.activation_bytes * (1 - 1 / static_cast<double>(t.micro_batch_size)));
  if (t.ema.kind != "none") saves("trainer.ema.kind=none", plan.ema_bytes);
  if (t.optimizer.moments != "int8")
    saves("trainer.optimizer.moments=int8", 0.75 * plan.optimizer_bytes);
  if (plan.sum_bytes > 0) saves("trainer.gradient_accumulation=1 on more ranks", plan.sum_bytes);
  const double state =
      plan.gradient_bytes + plan.optimizer_bytes + plan.master_bytes + plan.ema_bytes;
  if (plan.trained == plan.parameters)
    saves("twice as many ranks (--nproc, or trainer.parallel.shard)",
          0.5 * (plan.state_bytes() + plan.ema_bytes));
  if (plan.trained == plan.parameters) saves("LoRA instead of all weights", 0.98 * state);
  return advice;
}

using Seen = std::set<void*>;

/// Weights that ranks gather in 8 bits.
class Fp8Weights {
 public:
  Fp8Weights(const modules::Model& model, const TrainerConfig& t) : scaling_(t.fp8.scaling) {
    if (t.precision != "fp8" || !t.fp8.gather) return;
    for (const auto& [name, linear] : modules::fp8_linears(model, t.fp8))
      linears_[linear->weight.unsafeGetTensorImpl()] = linear;
  }
  bool takes(const Tensor& p, at::IntArrayRef sizes) const {
    const auto found = linears_.find(p.unsafeGetTensorImpl());
    return found != linears_.end() && Fp8Gather::takes(*found->second, sizes);
  }
  /// What ranks tell each other of their largest numbers at the beginning of a forward.
  double scale_bytes(at::IntArrayRef sizes) const {
    if (scaling_ == "delayed") return 0;
    const auto granularity =
        scaling_ == "block" ? ops::Fp8Granularity::k128x128 : ops::Fp8Granularity::kTensor;
    return 4.0 * static_cast<double>(Fp8Gather::scales(sizes, granularity));
  }

 private:
  std::string scaling_;
  std::map<void*, std::shared_ptr<modules::LinearImpl>> linears_;
};
/// What a checkpoint copies of `n` trained numbers: the weights, their masters, moments (8-bit ones
/// in float32), averages in the model's precision.
double staged_bytes(const TrainerConfig& t, double n, bool low) {
  if (!t.checkpoint.background) return 0;
  const double model = low ? 2 : 4;
  return n * (model + (low ? 4 : 0) + 8 + (t.ema.kind == "none" ? 0 : 4));
}

/// One process: everything is here.
void count_whole(const modules::Model& model, const TrainerConfig& t, Plan& plan) {
  Seen seen;
  for (const auto& item : model.named_parameters()) {
    const Tensor& p = item.value();
    if (!seen.insert(p.unsafeGetTensorImpl()).second) continue;
    const bool low = t.low_precision() && !model.keeps_float32(item.key());
    const auto n = static_cast<double>(p.numel());
    plan.weight_bytes += n * (low ? 2 : 4);
    if (!p.requires_grad()) continue;
    plan.gradient_bytes += n * 4;
    plan.backward_bytes += n * (low ? 2 : 4);
    plan.optimizer_bytes += n * moment_bytes(t);
    plan.decoded_bytes += t.optimizer.moments == "int8" ? n * 8 : 0;
    plan.master_bytes += low ? n * 4 : 0;
    plan.ema_bytes += t.ema.kind == "none" ? 0 : n * 4;
    plan.staging_bytes += staged_bytes(t, n, low);
  }
}

bool trains(const torch::nn::Module& block) {
  const auto parameters = block.parameters();
  return std::any_of(parameters.begin(), parameters.end(),
                     [](const Tensor& p) { return p.requires_grad(); });
}

/// One rank of several: its rows (float32 where trained, one for weight and master), the blocks
/// that are whole at a time, and what FullyShard hands to collectives.
void count_shards(const modules::Model& model, const TrainerConfig& t, const PipelineStages& stages,
                  int64_t pipeline_rank, Plan& plan) {
  TensorSlices slices = tensor_slices(model, plan.tensor);
  slices.merge(expert_slices(model, plan.expert));
  const Fp8Weights narrow(model, t);
  Seen seen;
  double gathers = 0, largest = 0, all = 0, scales = 0, reduced = 0;
  bool backward = false;  // blocks before the first trained one are gathered for forward alone
  for (const ShardUnit& unit : shard_units(model)) {
    if (plan.pipeline > 1 && stages.rank_of(unit.name) != pipeline_rank) {
      backward |= trains(*unit.block);  // gradients go back to it
      continue;
    }
    double whole = 0, gradients = 0;
    Seen here;
    for (const auto& item : unit.block->named_parameters()) {
      const Tensor& p = item.value();
      if (!here.insert(p.unsafeGetTensorImpl()).second) continue;
      const bool tied = !seen.insert(p.unsafeGetTensorImpl()).second;  // another block has it, too
      const std::string name = unit.name + "." + item.key();
      const bool low = t.low_precision() && !model.keeps_float32(name);
      // A slice's rows on the ranks that have the same slice, other rows on all of the replica.
      const auto slice = slices.find(name);
      const int64_t parts = slice == slices.end()            ? 1
                            : slice->second.axis == "expert" ? plan.expert
                                                             : plan.tensor;
      const std::vector<int64_t> sizes =
          parts > 1 ? slice_sizes(slice->second, parts) : p.sizes().vec();
      const int64_t holders = plan.shard * plan.tensor / parts;
      const auto rows = static_cast<double>(ops::padded_shard_numel(sizes, holders));
      const auto ranks = static_cast<double>(holders);
      const bool in_8_bits = narrow.takes(p, sizes);
      whole += ranks * rows * (in_8_bits ? 1 : low ? 2 : 4);
      if (in_8_bits) scales += narrow.scale_bytes(sizes);
      backward |= p.requires_grad();
      if (tied) continue;
      plan.weight_bytes += rows * (low && !p.requires_grad() ? 2 : 4);
      if (!p.requires_grad()) continue;
      plan.gradient_bytes += rows * 4;
      plan.optimizer_bytes += rows * moment_bytes(t);
      plan.decoded_bytes += t.optimizer.moments == "int8" ? rows * 8 : 0;
      plan.ema_bytes += t.ema.kind == "none" ? 0 : rows * 4;
      // Of what the ranks of another replica do not write.
      plan.staging_bytes += staged_bytes(t, rows, low) / static_cast<double>(plan.replica);
      plan.sum_bytes +=
          t.gradient_accumulation > 1 ? static_cast<double>(c10::multiply_integers(sizes)) * 4 : 0;
      plan.reduce_traffic += ranks * rows * 4;
      // As backward leaves them, and laid out for the reduction.
      gradients +=
          static_cast<double>(c10::multiply_integers(sizes)) * (low ? 2 : 4) + ranks * rows * 4;
    }
    gathers += whole * (backward && t.parallel.reshard_after_forward ? 2 : 1);
    largest = std::max(largest, whole);
    all += whole;
    reduced = std::max(reduced, gradients);
  }
  plan.gather_traffic = (gathers + scales) * static_cast<double>(t.gradient_accumulation);
  plan.backward_bytes = plan.gradient_bytes;
  // A block's parameters, and the next one on its way.
  plan.gathered_bytes = (t.parallel.reshard_after_forward ? 2 * largest : all + largest) + reduced;
}

/// Micro-batches that `rank` holds at once between forward and the end of their backward, counted
/// in whole models.
double micro_batches_held(const TrainerConfig& t, int64_t stages, int64_t rank) {
  const ParallelConfig& p = t.parallel;
  const PipelineSchedule schedule = pipeline_schedule(p.pipeline_schedule);
  const auto end = schedule == PipelineSchedule::kZeroBubble ? PipelineAction::kWeights
                                                             : PipelineAction::kBackward;
  int64_t held = 0, most = 0;
  for (const PipelineAction& action :
       pipeline_actions(schedule, rank, p.pipeline, stages / p.pipeline, t.gradient_accumulation)) {
    held += action.kind == PipelineAction::kForward ? 1 : action.kind == end ? -1 : 0;
    most = std::max(most, held);
  }
  return static_cast<double>(most) / static_cast<double>(stages);
}

/// Of the ranks of a pipeline the one that holds most. `common`: activations of a whole model.
Plan fullest_stage(const modules::Model& model, const TrainerConfig& t, const Plan& common) {
  const PipelineStages stages(model, t.parallel.pipeline, pipeline_chunks(t.parallel));
  Plan fullest;
  for (int64_t rank = 0; rank < t.parallel.pipeline; ++rank) {
    Plan plan = common;
    count_shards(model, t, stages, rank, plan);
    const double held = micro_batches_held(t, stages.stages(), rank);
    plan.activation_bytes *= held;
    plan.offloaded_bytes *= held;
    if (rank == 0 || plan.total_bytes() > fullest.total_bytes()) fullest = plan;
  }
  return fullest;
}

/// What a micro-batch keeps for backward, on the device and elsewhere, and needs beside.
void count_activations(const TrainerConfig& t, const ActivationShape& shape, Plan& plan) {
  if (shape.blocks == 0) return;
  const auto samples = static_cast<double>(t.micro_batch_size);
  const auto blocks = static_cast<double>(shape.blocks);
  const auto bytes = [&](const SampleBytes& of) { return samples * on_rank(of, t.parallel); };
  const double kept = bytes(shape.kept), working = bytes(shape.working);
  double again = bytes(shape.input);
  if (t.activation_checkpointing == "keep_attention") again += bytes(shape.attention);
  const double fraction = recomputed_fraction(t);
  const double waiting = blocks * (fraction * again + (1 - fraction) * kept);
  const bool offloads = t.activation_offload != "none";
  (offloads ? plan.offloaded_bytes : plan.activation_bytes) = waiting;
  plan.activation_bytes += bytes(shape.rest);
  // One block runs its forward again, or has its activations brought back; with some blocks kept
  // that is a moment at which the last ones are gone already.
  const bool again_first =
      fraction == 1 || (fraction > 0 && (shape.blocks - 1) % t.selective_every == 0);
  plan.working_bytes = working + (again_first ? kept + bytes(shape.input) : offloads ? kept : 0);
}

/// What ranks that share samples send each other in a step.
void count_activation_traffic(const TrainerConfig& t, const Recipe& recipe, double samples,
                              int64_t element_bytes, Plan& plan) {
  const auto context = static_cast<double>(plan.context);
  const auto stages = static_cast<double>(plan.pipeline);
  const auto bytes = static_cast<double>(element_bytes);
  if (plan.tensor > 1) {
    const int64_t every = t.activation_checkpointing == "none"        ? 0
                          : t.activation_checkpointing == "selective" ? t.selective_every
                                                                      : 1;
    plan.tensor_traffic = samples * bytes *
                          recipe.tensor_elements_per_sample(t.parallel.sequence, every) /
                          (context * stages);
  }
  const TokenShape shape = recipe.token_shape();
  if (plan.context > 1)
    plan.context_traffic =
        samples *
        context_traffic(shape, context_attention(t.parallel.context_attention), plan.tokens,
                        plan.context, recomputed_fraction(t), bytes) /
        stages;
}

/// What the rank of a pipeline that sends most sends in a step: what blocks behind a cut take, on;
/// gradients of what learns, back. The first stage gets nothing back, the last sends nothing on.
double pipeline_traffic(const TrainerConfig& t, const Recipe& recipe, const modules::Model& model,
                        int64_t element_bytes) {
  const ParallelConfig& p = t.parallel;
  const double split = static_cast<double>(p.context * (p.sequence ? p.tensor : 1));
  double on = 0, back = 0;
  for (const SharedOutput& output : recipe.shared_outputs()) {
    const double elements = output.elements / (output.by_tokens ? split : 1) *
                            static_cast<double>(output.by_sample ? t.micro_batch_size : 1);
    on += elements;
    const bool learns = output.block.empty() || trains(*model.named_modules()[output.block]);
    back += learns ? elements : 0;
  }
  const auto chunks = static_cast<double>(pipeline_chunks(p));
  double most = 0;
  for (int64_t rank = 0; rank < p.pipeline; ++rank)
    most = std::max(most, (chunks - (rank + 1 == p.pipeline ? 1 : 0)) * on +
                              (chunks - (rank == 0 ? 1 : 0)) * back);
  return most * static_cast<double>(t.gradient_accumulation * element_bytes);
}

/// What is offloaded is not on the device.
void move_away(const TrainerConfig& t, Plan& plan) {
  if (t.parallel.offload == "none") return;
  plan.away_bytes = plan.weight_bytes + plan.gradient_bytes + plan.optimizer_bytes + plan.ema_bytes;
  plan.weight_bytes = plan.gradient_bytes = plan.backward_bytes = 0;
  plan.optimizer_bytes = plan.ema_bytes = plan.decoded_bytes = 0;
}

}  // namespace

double recomputed_fraction(const TrainerConfig& t) {
  if (t.activation_checkpointing == "selective")
    return 1.0 / static_cast<double>(t.selective_every);
  return t.activation_checkpointing == "none" ? 0 : 1;
}

double Plan::total_bytes() const {
  const double always = weight_bytes + optimizer_bytes + master_bytes + ema_bytes;
  // Whole models keep every block's gradients as they come; shards' are reduced block by block.
  const bool whole = gathered_bytes == 0;
  const double before = whole && accumulates ? gradient_bytes : 0;
  const double begin = before + activation_bytes + working_bytes +
                       (whole ? block_bytes : gathered_bytes + sum_bytes);
  const bool sums = whole && backward_bytes < gradient_bytes;  // float32 sums of bfloat16 ones
  const double end = (sums || !whole ? backward_bytes + before : gradient_bytes) + working_bytes +
                     (whole ? 0 : gathered_bytes + sum_bytes);
  return always +
         std::max({begin, end, gradient_bytes, decoded_bytes, on_host ? staging_bytes : 0});
}

Plan make_plan(const Config& config, Recipe& recipe, int64_t ranks) {
  const TrainerConfig& t = config.trainer;
  const int64_t element_bytes = t.low_precision() ? 2 : t.precision == "fp64" ? 8 : 4;
  Plan plan;
  plan.replica = t.parallel.replica;
  plan.context = t.parallel.context;
  plan.expert = t.parallel.expert;
  plan.shard = shard_ranks(t.parallel, ranks) * plan.expert * plan.context;
  plan.tensor = t.parallel.tensor;
  plan.pipeline = t.parallel.pipeline;
  plan.tokens = recipe.tokens_per_sample();
  plan.on_host = t.device == "cpu" || !torch::cuda::is_available();
  plan.accumulates = t.gradient_accumulation > 1;
  {
    const modules::SkipInit untouched;
    const auto model = recipe.model_for_plan();
    count_activations(t, recipe.activation_shape(*model, element_bytes), plan);
    Seen seen;
    for (const Tensor& p : model->parameters()) {
      if (!seen.insert(p.unsafeGetTensorImpl()).second) continue;
      plan.parameters += p.numel();
      plan.trained += p.requires_grad() ? p.numel() : 0;
    }
    if (plan.pipeline > 1) {
      plan = fullest_stage(*model, t, plan);
      plan.pipeline_traffic = pipeline_traffic(t, recipe, *model, element_bytes);
    } else if (plan.ranks() > 1 || t.parallel.offload != "none")
      count_shards(*model, t, PipelineStages(), 0, plan);
    else
      count_whole(*model, t, plan);
    for (const ShardUnit& unit : shard_units(*model)) {
      double gradients = 0;
      for (const Tensor& p : unit.block->parameters())
        gradients += p.requires_grad() ? static_cast<double>(p.numel()) : 0;
      plan.block_bytes = std::max(plan.block_bytes, gradients * static_cast<double>(element_bytes));
    }
    move_away(t, plan);
  }
  const auto samples = static_cast<double>(t.micro_batch_size * t.gradient_accumulation);
  plan.flops_per_step =
      recipe.flops_per_sample() * samples / static_cast<double>(plan.context * plan.pipeline);
  count_activation_traffic(t, recipe, samples, element_bytes, plan);
  plan.available_bytes = available_memory();
  plan.advice = make_advice(plan, t);
  return plan;
}

}  // namespace cosmos::trainer
