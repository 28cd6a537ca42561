#pragma once

// What a training step needs of the other ranks. In one process every call is the identity.

#include <memory>
#include <string>

#include "modules/core/model.h"
#include "trainer/config/config.h"
#include "trainer/parallel/context_parallel.h"
#include "trainer/parallel/expert_parallel.h"
#include "trainer/parallel/fully_shard.h"
#include "trainer/parallel/mesh.h"
#include "trainer/parallel/pipeline.h"
#include "trainer/parallel/tensor_parallel.h"

namespace cosmos::trainer {

/// trainer.parallel.shard, or all ranks that the other axes leave. Throws Error when the product of
/// the axes is not `ranks`.
int64_t shard_ranks(const ParallelConfig& config, int64_t ranks);

/// Runs of blocks that a rank of the pipeline holds.
int64_t pipeline_chunks(const ParallelConfig& config);

class DataParallel {
 public:
  /// `world` null: one process. Throws Error when the axes do not make the number of ranks. What
  /// one process offloads is sharded like that of several: over itself.
  DataParallel(std::shared_ptr<Group> world, const ParallelConfig& config);

  int64_t rank() const { return world_ ? world_->rank() : 0; }
  int64_t ranks() const { return world_ ? world_->size() : 1; }
  /// The one that writes what there is one of.
  bool first() const { return rank() == 0; }
  /// Among those that read different samples: along replica, shard and expert.
  int64_t data_rank() const;
  int64_t data_ranks() const;

  /// Whether models are sharded.
  bool shards() const { return mesh_ != nullptr; }
  /// Splits and shards the model, cut into stages where there is a pipeline. What the config says
  /// of `options` is set here; away and fp8 are the caller's. Returns the model's block runner:
  /// `inner` itself in one process that offloads nothing.
  std::shared_ptr<modules::BlockRunner> shard(modules::Model& model,
                                              std::shared_ptr<modules::BlockRunner> inner,
                                              ShardOptions options = {});
  /// Null where every rank holds all tokens.
  const ContextPlan* context() const { return context_.get(); }

  /// Null without a pipeline.
  Pipeline* pipeline() const { return pipeline_.get(); }
  /// Null in one process.
  FullyShard* sharded() const { return sharded_.get(); }
  /// Bytes of activations that this rank handed to collectives so far.
  int64_t activation_bytes() const;

  /// Mean over ranks of a scalar.
  Tensor mean(const Tensor& scalar) const;
  /// Sum of a scalar over the ranks that hold the other shards.
  Tensor sum_over_shards(Tensor scalar) const;
  /// Raises `x` to its largest values on any rank.
  void max_over_ranks(const Tensor& x) const;
  /// Whether any rank says so.
  bool any(bool here) const;
  /// Metrics of all ranks: means of numbers, {"mean", "n"} weighted by n, the rest as on rank 0.
  Json merge(const Json& row) const;
  /// Every rank's text, by rank.
  std::vector<std::string> texts(const std::string& text) const;
  /// Null in one process.
  const Group* world() const { return mesh_ ? world_.get() : nullptr; }
  /// Runs `fn` on the first rank while the others wait, and returns its text on all of them. Throws
  /// what it threw on all of them.
  std::string from_first(const std::function<std::string()>& fn) const;
  void on_first(const std::function<void()>& fn) const {
    from_first([&] { return fn(), ""; });
  }

 private:
  void split_tokens(modules::Model& model);
  /// Tells adapters with dropout which part of their input this rank has.
  void place_inputs(const modules::Model& model) const;

  std::shared_ptr<Group> world_;
  std::unique_ptr<Mesh> mesh_;
  ParallelConfig config_;
  std::unique_ptr<TensorParallel> tensor_;
  std::unique_ptr<ExpertParallel> expert_;
  std::shared_ptr<FullyShard> sharded_;
  std::shared_ptr<const ContextPlan> context_;
  std::shared_ptr<Pipeline> pipeline_;
};

/// DataParallel::merge for rows at hand.
Json merge_rows(const std::vector<Json>& rows);

}  // namespace cosmos::trainer
