#include "trainer/loop/plan.h"

#include <algorithm>
#include <c10/util/accumulate.h>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

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

/// The share of blocks whose forward runs twice.
double recomputed_fraction(const TrainerConfig& t) {
  if (t.activation_checkpointing == "selective")
    return 1.0 / static_cast<double>(t.selective_every);
  return t.activation_checkpointing == "full" ? 1 : 0;
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
    plan.gradient_bytes += n * (low ? 6 : 4);
    plan.optimizer_bytes += n * moment_bytes(t);
    plan.master_bytes += low ? n * 4 : 0;
    plan.ema_bytes += t.ema.kind == "none" ? 0 : n * 4;
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
  double gathers = 0, largest = 0, all = 0, scales = 0;
  bool backward = false;  // blocks before the first trained one are gathered for forward alone
  for (const ShardUnit& unit : shard_units(model)) {
    if (plan.pipeline > 1 && stages.rank_of(unit.name) != pipeline_rank) {
      backward |= trains(*unit.block);  // gradients go back to it
      continue;
    }
    double whole = 0;
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
      plan.ema_bytes += t.ema.kind == "none" ? 0 : rows * 4;
      plan.sum_bytes +=
          t.gradient_accumulation > 1 ? static_cast<double>(c10::multiply_integers(sizes)) * 4 : 0;
      plan.reduce_traffic += ranks * rows * 4;
    }
    gathers += whole * (backward && t.parallel.reshard_after_forward ? 2 : 1);
    largest = std::max(largest, whole);
    all += whole;
  }
  plan.gather_traffic = (gathers + scales) * static_cast<double>(t.gradient_accumulation);
  // A block as it came and as parameters, and the next one on its way.
  plan.gathered_bytes = t.parallel.reshard_after_forward ? 3 * largest : all + largest;
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
    plan.activation_bytes *= micro_batches_held(t, stages.stages(), rank);
    if (rank == 0 || plan.total_bytes() > fullest.total_bytes()) fullest = plan;
  }
  return fullest;
}

/// Bytes of activations that a micro-batch keeps for backward.
double activation_bytes(const TrainerConfig& t, const Recipe& recipe, int64_t element_bytes) {
  const double kept = recipe.activation_bytes_per_sample(/*recompute=*/false, element_bytes);
  const double recomputed = recipe.activation_bytes_per_sample(/*recompute=*/true, element_bytes);
  const double fraction = recomputed_fraction(t);
  return static_cast<double>(t.micro_batch_size) * (fraction * recomputed + (1 - fraction) * kept) /
         static_cast<double>(t.parallel.context);
}

/// What ranks that share samples send each other in a step.
void count_activation_traffic(const TrainerConfig& t, const Recipe& recipe, double samples,
                              int64_t element_bytes, Plan& plan) {
  const auto context = static_cast<double>(plan.context);
  const auto stages = static_cast<double>(plan.pipeline);
  const auto bytes = static_cast<double>(element_bytes);
  if (plan.tensor > 1) {
    const int64_t every = t.activation_checkpointing == "none"   ? 0
                          : t.activation_checkpointing == "full" ? 1
                                                                 : t.selective_every;
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
  if (plan.pipeline > 1) {
    const double split = t.parallel.sequence ? static_cast<double>(plan.tensor) : 1;
    // On and back at each of a rank's stages, but for the first and the last.
    plan.pipeline_traffic = samples * 2 * static_cast<double>(pipeline_chunks(t.parallel)) *
                            plan.tokens / (context * split) *
                            static_cast<double>(shape.heads * shape.head_dim) * bytes;
  }
}

}  // namespace

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
  plan.activation_bytes = activation_bytes(t, recipe, element_bytes);
  {
    const modules::SkipInit untouched;
    const auto model = recipe.model_for_plan();
    Seen seen;
    for (const Tensor& p : model->parameters()) {
      if (!seen.insert(p.unsafeGetTensorImpl()).second) continue;
      plan.parameters += p.numel();
      plan.trained += p.requires_grad() ? p.numel() : 0;
    }
    if (plan.pipeline > 1)
      plan = fullest_stage(*model, t, plan);
    else if (plan.ranks() > 1)
      count_shards(*model, t, PipelineStages(), 0, plan);
    else
      count_whole(*model, t, plan);
  }
  const auto samples = static_cast<double>(t.micro_batch_size * t.gradient_accumulation);
  plan.flops_per_step =
      recipe.flops_per_sample() * samples / static_cast<double>(plan.context * plan.pipeline);
  count_activation_traffic(t, recipe, samples, element_bytes, plan);
  plan.available_bytes = available_memory();
  plan.advice = make_advice(plan, t);
  return plan;
}

std::string format_plan(const Plan& plan, const Config& config) {
  std::ostringstream out;
  const auto line = [&](const std::string& what, const std::string& value) {
    out << what << std::string(what.size() < 34 ? 34 - what.size() : 1, ' ') << value << '\n';
  };
  const auto known = [](double value, const std::string& text) {
    return value > 0 ? text : std::string("unknown (the recipe does not say)");
  };
  line("parameters", format_count(plan.parameters));
  line("trained", format_count(plan.trained));
  line("FLOPs per step",
       known(plan.flops_per_step, format_number(plan.flops_per_step * 1e-12) + " T"));
  const bool sharded = plan.ranks() > 1;
  if (sharded)
    line("ranks", std::to_string(plan.ranks()) + ": " + std::to_string(plan.replica) + " x " +
                      std::to_string(plan.shard) + " shards" +
                      (plan.tensor > 1 ? " x " + std::to_string(plan.tensor) + " slices" : "") +
                      (plan.pipeline > 1 ? " x " + std::to_string(plan.pipeline) + " stages" : "") +
                      "; bytes of one:");
  const bool wider = sharded && config.trainer.low_precision();
  line("weights (" + config.trainer.precision + (wider ? ", trained ones fp32)" : ")"),
       format_bytes(plan.weight_bytes));
  line("gradients", format_bytes(plan.gradient_bytes));
  line("AdamW moments (" + config.trainer.optimizer.moments + ")",
       format_bytes(plan.optimizer_bytes));
  if (!sharded) line("master weights (fp32)", format_bytes(plan.master_bytes));
  line("averaged weights (fp32)", format_bytes(plan.ema_bytes));
  if (sharded) {
    line("sums over micro-batches (fp32)", format_bytes(plan.sum_bytes));
    line("blocks gathered at a time", format_bytes(plan.gathered_bytes));
  }
  if (plan.context > 1)
    line("tokens of a sample",
         known(plan.tokens, format_count(static_cast<int64_t>(plan.tokens)) + ", on " +
                                std::to_string(plan.context) + " ranks"));
  line(plan.pipeline > 1 ? "activations of micro-batches held" : "activations of a micro-batch",
       known(plan.activation_bytes, format_bytes(plan.activation_bytes)));
  line("predicted peak, at least", format_bytes(plan.total_bytes()));
  line("communication per step", sharded ? format_bytes(plan.gather_traffic) + " gathered, " +
                                               format_bytes(plan.reduce_traffic) + " reduced"
                                         : "none (one process)");
  if (plan.tensor > 1)
    line("activations between slices",
         known(plan.tensor_traffic, format_bytes(plan.tensor_traffic) + " a step"));
  if (plan.context > 1)
    line("tokens' exchange per step",
         known(plan.context_traffic, format_bytes(plan.context_traffic) + " received"));
  if (plan.pipeline > 1)
    line("hidden states to other stages",
         known(plan.pipeline_traffic, format_bytes(plan.pipeline_traffic) + " a step"));
  if (plan.available_bytes > 0) {
    const bool fits = plan.total_bytes() <= plan.available_bytes;
    line("free memory here",
         format_bytes(plan.available_bytes) + (fits ? ": fits" : ": does not fit"));
  }
  for (const std::string& change : plan.advice) out << "  " << change << '\n';
  return out.str();
}

}  // namespace cosmos::trainer
