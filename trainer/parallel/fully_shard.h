#pragma once

// Fully sharded data parallelism, from outside the model (PyTorch FSDP2; ZeRO stage 3, Rajbhandari
// et al. 2020). Every parameter is split on dimension 0 over ranks of the mesh; a block's
// parameters are gathered when the block runs and freed after it, in forward and in backward; its
// gradients are reduce-scattered as soon as they are there. With a "replica" axis above 1 each
// replica holds all shards and gradients are summed over it, too (HSDP).
//
// Over which ranks: all of one replica ("model": shard x expert x context x tensor), unless each
// of them has a slice of its own, whose rows are split over the ranks that have the same slice:
// shard x expert x context ("weights") where tensor parallelism slices, shard x context x tensor
// ("experts") where expert parallelism does. So every rank holds numbers that no other of its
// replica holds, and reducing to them sums over all ranks that computed with the parameter.
//
// The optimiser works on shards(). The model's own parameters keep their shapes and have no bytes
// between blocks.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "modules/core/model.h"
#include "trainer/optim/adamw.h"
#include "trainer/parallel/mesh.h"
#include "trainer/parallel/pipeline_stages.h"
#include "trainer/parallel/shard_bucket.h"
#include "trainer/parallel/shard_layout.h"
#include "trainer/parallel/tensor_slice.h"

namespace cosmos::trainer {

struct ShardOptions {
  /// false: keep a block's parameters from forward to backward (ZeRO stage 2).
  bool reshard_after_forward = true;
  /// Blocks of other ranks of the mesh's axis "pipeline" are not held here: their parameters keep
  /// their shapes and have no bytes.
  PipelineStages stages{};
  /// Whose weights travel in 8 bits; null: all as they are.
  modules::Fp8Layers* fp8 = nullptr;
  /// Where shards and their gradients are; null: on the model's device.
  std::shared_ptr<AwayMemory> away{};
};

/// What is gathered together: the children of the model, or of a container in it (a module that has
/// no parameters and no class of its own, or a ModuleList), at any depth, with their paths.
struct ShardUnit {
  std::string name;
  std::shared_ptr<torch::nn::Module> block;
};
std::vector<ShardUnit> shard_units(const torch::nn::Module& model);

class FullyShard : public modules::BlockRunner, public std::enable_shared_from_this<FullyShard> {
 public:
  /// Shards the model in place; its blocks are shard_units(). `inner` runs their computation
  /// (activation checkpointing), null for a plain call. Weights must be the same on all ranks, but
  /// for those in `slices`, which TensorParallel and ExpertParallel have split.
  FullyShard(modules::Model& model, const Mesh& mesh, ShardOptions options,
             std::shared_ptr<modules::BlockRunner> inner, TensorSlices slices = {});

  Tensors run(const std::string& name, torch::nn::Module& block, const Tensors& inputs,
              const modules::BlockFn& fn) override;

  /// Before a backward. False: its gradients stay whole on this rank and are added up, to be
  /// reduced with those of the last micro-batch.
  void set_reduce(bool reduce) { reduce_ = reduce; }
  /// Call after every backward.
  void finish_backward();
  /// Takes gradients that came outside of a backward, to be reduced with the others.
  void keep_gradients();

  /// This rank's rows of the trained parameters, by parameter name; leaves with gradients.
  NamedTensors shards() const;

  /// Whether it is a parameter of another stage's block.
  bool is_elsewhere(const std::string& name) const { return elsewhere_.count(name) > 0; }
  /// What this rank holds of a parameter, trained or frozen; undefined when it is no parameter, or
  /// one of another stage.
  Tensor shard(const std::string& name) const;

  /// Copies this rank's part of the whole parameter `name`, rounded as the model's dtype rounds it;
  /// nothing of another stage's.
  void load(const std::string& name, const Tensor& whole);

  /// Which box of the whole parameter that is.
  Region region(const std::string& name) const;
  /// Who else holds that box: the replicas.
  Copies copies(const std::string& name) const;
  /// The ranks that have this one's blocks.
  Copies stage_ranks() const;

  /// While one lives, split parameters show the shapes that they have on one rank, without bytes:
  /// what files are held against.
  class WholeShapes {
   public:
    explicit WholeShapes(FullyShard* sharded);  ///< null: nothing happens
    ~WholeShapes();
    WholeShapes(const WholeShapes&) = delete;
    WholeShapes& operator=(const WholeShapes&) = delete;

   private:
    std::vector<std::pair<Tensor, Tensor>> slices_;
  };
  const ShardTraffic& traffic() const { return traffic_; }
  /// Bytes of parameters, gradients and kept sums that this rank holds between steps: on the
  /// device, and away.
  struct Held {
    int64_t device = 0, away = 0;
  };
  Held held_bytes() const;

 private:
  /// A block's buckets, one a dtype and group, and those of weights that it shares with others
  /// (tied embeddings), which are reduced when all have had their backward.
  struct Unit {
    std::string name;
    std::vector<ShardBucket*> buckets;
    std::vector<ShardBucket*> tied;
    bool trained = false;
    bool expects_backward = false;             ///< ran with gradients, and its backward did not yet
    bool reduced = false;                      ///< in this backward
    Unit *before = nullptr, *after = nullptr;  ///< neighbours in the last forward
  };

  const Group& row_group(const std::string& name) const;
  using Params = std::vector<std::pair<std::string, Tensor>>;
  /// `fp8`: a bucket of weights that travel in 8 bits.
  ShardBucket* add_bucket(const Params& params, bool fp8 = false);
  std::unique_ptr<Fp8Gather> fp8_gather(const Params& params) const;
  void take_scales();
  bool is_tied(const ShardBucket& bucket) const;
  ShardBucket* tied_bucket(const std::string& name, const Tensor& parameter);
  void add_unit(const ShardUnit& given);
  void leave_out(const ShardUnit& given);
  void check_stages(const std::vector<ShardUnit>& units) const;
  bool is_here(const ShardUnit& unit) const;
  Tensor full_of(const std::string& name) const;
  Unit* unit_of(const std::string& name, torch::nn::Module& block);
  void unshard(Unit& unit);
  void reshard(Unit& unit);
  void enter(Unit& unit);
  void settle();
  void prefetch(Unit& unit);
  void reduce(Unit& unit);
  void reduce(ShardBucket& bucket);
  void before_backward(Unit& unit);
  void after_backward(Unit& unit);
  Tensors mark_inputs(Unit& unit, const Tensors& inputs);
  void mark_outputs(Unit& unit, const Tensors& outputs);

  const Mesh& mesh_;
  ShardOptions options_;
  TensorSlices slices_;
  std::shared_ptr<modules::BlockRunner> inner_;
  std::vector<std::unique_ptr<ShardBucket>> buckets_;
  std::vector<std::unique_ptr<Unit>> units_;
  std::map<const void*, int> users_;          ///< blocks that have a parameter
  std::map<const void*, ShardBucket*> tied_;  ///< of parameters that several have
  std::map<const torch::nn::Module*, Unit*> by_block_;
  std::map<std::string, const ShardBucket::Param*> by_name_;
  std::map<std::string, Tensor> elsewhere_;    ///< parameters of other stages
  std::map<const void*, int64_t> fp8_layers_;  ///< of weights that travel in 8 bits
  Unit *first_ = nullptr, *last_ = nullptr;    ///< to run in a forward: the first ever, the latest
  bool scales_taken_ = false;                  ///< in this forward
  bool reduce_ = true;
  ShardBucket* reducing_ = nullptr;  ///< whose reduction is under way
  ShardTraffic traffic_;
};

}  // namespace cosmos::trainer
