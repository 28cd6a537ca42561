#include "trainer/loop/step_time.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <set>
#include <sstream>

#include "modules/core/init.h"
#include "trainer/loop/data_parallel.h"
#include "trainer/loop/plan.h"
#include "trainer/report/console.h"

namespace cosmos::trainer {
namespace {

/// Collectives of groups of one size.
class Link {
 public:
  /// The group's ranks are `stride` apart. Between machines it has the part of the network that
  /// belongs to its ranks: the other ranks' groups use the rest at the same time.
  Link(const MachineSpeeds& speeds, int64_t ranks, int64_t stride) : ranks_(ranks) {
    const bool node = ranks * stride <= speeds.node_ranks;
    speed_ = node ? speeds.node : speeds.network;
    const int64_t here = std::max<int64_t>(1, speeds.node_ranks / stride);
    if (!node)
      speed_.gb_per_s *= static_cast<double>(here) / static_cast<double>(speeds.node_ranks);
    require(ranks <= 1 || speed_.gb_per_s > 0, "speeds: ", node ? "node" : "network",
            ".gb_per_s: expected a number above 0, since groups of ", ranks, " ranks use it, got ",
            speed_.gb_per_s);
  }
  /// An all-gather or reduce-scatter; `bytes`: all ranks' parts.
  double seconds(double bytes) const {
    if (ranks_ <= 1) return 0;
    const auto n = static_cast<double>(ranks_);
    const auto doublings = static_cast<double>(std::bit_width(static_cast<uint64_t>(ranks_ - 1)));
    return speed_.latency_us * 1e-6 * doublings + bytes * (n - 1) / n / (speed_.gb_per_s * 1e9);
  }

 private:
  int64_t ranks_;
  LinkSpeed speed_;
};

/// A block's times, in seconds.
struct Block {
  double forward = 0, backward = 0;  ///< backward with the second forward, where there is one
  double gather = 0, reduce = 0, replicas = 0;
  bool trained = false;
};

/// Two streams: products, and collectives in the order in which FullyShard starts them.
class Streams {
 public:
  Streams(const std::vector<Block>& blocks, bool reshards) : blocks_(blocks), reshards_(reshards) {}

  void forward() {
    double ready = gather(0, time_);
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      time_ = std::max(time_, ready);
      if (i + 1 < blocks_.size()) ready = gather(i + 1, time_);
      time_ += blocks_[i].forward;
    }
  }

  void backward(bool reduces) {
    const std::size_t n = blocks_.size();
    double ready = reshards_ ? gather(n - 1, time_) : time_;
    double reduced = time_;
    for (std::size_t k = n; k-- > 0;) {
      time_ = std::max(time_, ready);
      ready = k > 0 && reshards_ ? gather(k - 1, time_) : time_;
      time_ += blocks_[k].backward;
      if (!reduces || !blocks_[k].trained) continue;
      // One reduction at a time: the one before ends first, with its sum over replicas.
      time_ = std::max(time_, reduced);
      reduced = run(time_, blocks_[k].reduce + blocks_[k].replicas);
    }
    time_ = std::max(time_, reduced);
  }

  double time() const { return time_; }

 private:
  double gather(std::size_t i, double from) { return run(from, blocks_[i].gather); }
  double run(double from, double seconds) {
    wire_ = std::max(wire_, from) + seconds;
    return wire_;
  }

  const std::vector<Block>& blocks_;
  bool reshards_;
  double time_ = 0, wire_ = 0;
};

/// A rank's blocks with their times for one micro-batch.
std::vector<Block> blocks_of(const modules::Model& model, const TrainerConfig& t,
                             const Recipe& recipe, const Plan& plan, const MachineSpeeds& speeds) {
  const int64_t replica = plan.shard * plan.tensor;  // ranks of one, of one stage
  const Link shards(speeds, replica, 1);
  const Link replicas(speeds, plan.replica, replica);
  const double slices = static_cast<double>(plan.tensor);
  const double bytes = t.low_precision() ? 2 : t.precision == "fp64" ? 8 : 4;
  double all = 0;
  for (const Tensor& p : model.parameters()) all += static_cast<double>(p.numel());
  // The recipe's FLOPs are of forward and backward: a third and two, or halves with an adapter.
  const double step = recipe.flops_per_sample() * static_cast<double>(t.micro_batch_size) /
                      (static_cast<double>(plan.context) * slices);
  const double forward = step / (plan.trained == plan.parameters ? 3 : 2);
  const double speed = speeds.matmul_tflops * 1e12;
  const double micro_batches = static_cast<double>(t.gradient_accumulation);
  const auto units = shard_units(model);
  // Exchanges in the middle of a block stop its products.
  const Link tensor(speeds, plan.tensor, 1);
  const Link context(speeds, plan.context, plan.tensor);
  const double exchanged = (tensor.seconds(plan.tensor_traffic / micro_batches) +
                            context.seconds(plan.context_traffic / micro_batches)) *
                           static_cast<double>(plan.pipeline);
  std::vector<Block> blocks;
  for (const ShardUnit& unit : units) {
    Block block;
    double numel = 0, trained = 0;
    for (const Tensor& p : unit.block->parameters()) {
      numel += static_cast<double>(p.numel());
      trained += p.requires_grad() ? static_cast<double>(p.numel()) : 0;
    }
    const double share = numel / all;
    block.forward = (forward / speed + exchanged / 3) * share;
    block.backward = ((step - forward) / speed + exchanged * 2 / 3) * share +
                     recomputed_fraction(t) * block.forward;
    block.gather = shards.seconds(numel / slices * bytes);
    block.reduce = shards.seconds(trained / slices * 4);
    // Its shards, summed over replicas: an all-reduce is a reduce-scatter and an all-gather.
    block.replicas = 2 * replicas.seconds(trained / static_cast<double>(replica) * 4);
    block.trained = trained > 0;
    blocks.push_back(block);
  }
  return blocks;
}

}  // namespace

StepTime step_time(Config config, Recipe& recipe, const MachineSpeeds& speeds, int64_t ranks) {
  TrainerConfig& t = config.trainer;
  ParallelConfig& p = t.parallel;
  if (p.shard > 0) {
    const int64_t one = p.shard * p.expert * p.context * p.tensor * p.pipeline;
    p.replica = std::max<int64_t>(1, ranks / one);
  }
  const Plan plan = make_plan(config, recipe, ranks);
  const modules::SkipInit untouched;
  std::vector<Block> blocks = blocks_of(*recipe.model_for_plan(), t, recipe, plan, speeds);
  const double stages = static_cast<double>(p.pipeline);
  StepTime result;
  const auto micro_batches = static_cast<double>(t.gradient_accumulation);
  for (const Block& block : blocks)
    result.compute += (block.forward + block.backward) * micro_batches / stages;
  Streams streams(blocks, p.reshard_after_forward);
  for (int64_t i = 0; i < t.gradient_accumulation; ++i) {
    streams.forward();
    streams.backward(i + 1 == t.gradient_accumulation);
  }
  const double busy = streams.time() / stages;
  result.exposed = busy - result.compute;
  // 1F1B fills and drains p - 1 micro-batches of a stage; chunks make that shorter.
  result.idle = busy / micro_batches * (stages - 1) / static_cast<double>(pipeline_chunks(p));
  const double state = plan.state_bytes() + plan.ema_bytes;
  result.optimizer = 2 * state / (speeds.memory_gb_per_s * 1e9);  // read and written
  result.seconds = busy + result.idle + result.optimizer;
  const auto data_ranks = static_cast<double>(ranks / (p.context * p.tensor * p.pipeline));
  result.samples = static_cast<double>(t.micro_batch_size) * micro_batches * data_ranks;
  result.peak_bytes = plan.total_bytes();
  return result;
}

namespace {

struct Row {
  int64_t ranks = 0;
  int64_t micro_batches = 0;
  StepTime time;
};

std::string table(const std::vector<Row>& rows, const Recipe& recipe, const MachineSpeeds& speeds) {
  std::ostringstream out;
  out << "| ranks | micro-batches | step, s | compute | waits | pipeline idle | update | samples/s "
         "| TFLOP/s a rank | efficiency | peak |\n"
         "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
  double first = 0;
  for (const Row& row : rows) {
    const StepTime& t = row.time;
    const double rate = t.samples / t.seconds / static_cast<double>(row.ranks);  // of one rank
    if (first == 0) first = rate;
    const bool fits = speeds.memory_gb == 0 || t.peak_bytes <= speeds.memory_gb * 1e9;
    char line[256];
    std::snprintf(line, sizeof line,
                  "| %lld | %lld | %.3g | %.0f %% | %.0f %% | %.0f %% | %.0f %% | %.4g | %.0f | "
                  "%.0f %% | %s%s |\n",
                  static_cast<long long>(row.ranks), static_cast<long long>(row.micro_batches),
                  t.seconds, 100 * t.compute / t.seconds, 100 * t.exposed / t.seconds,
                  100 * t.idle / t.seconds, 100 * t.optimizer / t.seconds, t.samples / t.seconds,
                  rate * recipe.flops_per_sample() * 1e-12, 100 * rate / first,
                  format_bytes(t.peak_bytes).c_str(), fits ? "" : ", too much");
    out << line;
  }
  return out.str();
}

}  // namespace

std::string scaling_tables(const Config& config, Recipe& recipe, const MachineSpeeds& speeds,
                           int64_t most) {
  require(recipe.flops_per_sample() > 0, config.source, ": the recipe does not say how many FLOPs ",
          "a sample takes, so that no step time follows");
  const ParallelConfig& p = config.trainer.parallel;
  const int64_t one = std::max<int64_t>(1, p.shard) * p.expert * p.context * p.tensor * p.pipeline;
  std::vector<Row> weak, strong;
  for (int64_t ranks = one; ranks <= most; ranks *= 2)
    weak.push_back({.ranks = ranks,
                    .micro_batches = config.trainer.gradient_accumulation,
                    .time = step_time(config, recipe, speeds, ranks)});
  const int64_t total = most / one;  // so that the last size has one micro-batch a rank
  require(!weak.empty(), "the layout takes ", one, " ranks, more than ", most);
  Config same = config;
  for (int64_t ranks = one; ranks <= most; ranks *= 2) {
    same.trainer.gradient_accumulation = std::max<int64_t>(1, total / (ranks / one));
    if (same.trainer.gradient_accumulation < p.pipeline) break;
    strong.push_back({.ranks = ranks,
                      .micro_batches = same.trainer.gradient_accumulation,
                      .time = step_time(same, recipe, speeds, ranks)});
  }
  std::ostringstream out;
  out << "Speeds (" << speeds.name << "): " << format_number(speeds.matmul_tflops)
      << " TFLOP/s, memory " << format_number(speeds.memory_gb_per_s) << " GB/s; "
      << speeds.node_ranks << " ranks a machine at " << format_number(speeds.node.gb_per_s)
      << " GB/s and " << format_number(speeds.node.latency_us) << " us, machines at "
      << format_number(speeds.network.gb_per_s) << " GB/s and "
      << format_number(speeds.network.latency_us) << " us.\n\n"
      << "Weak scaling: the same micro-batches on every rank.\n\n"
      << table(weak, recipe, speeds)
      << "\nStrong scaling: " << static_cast<int64_t>(strong.front().time.samples)
      << " samples in every step.\n\n"
      << table(strong, recipe, speeds);
  return out.str();
}

}  // namespace cosmos::trainer
