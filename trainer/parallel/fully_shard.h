#pragma once

// Fully sharded data parallelism, from outside the model (PyTorch FSDP2; ZeRO stage 3, Rajbhandari
// et al. 2020). Every parameter is split on dimension 0 over ranks of the mesh; a block's
// parameters are gathered when the block runs and freed after it, in forward and in backward; its
// gradients are reduce-scattered as soon as they are there. With a "replica" axis above 1 each
// replica holds all shards and gradients are summed over it, too (HSDP).
//
// Over which ranks: all of one replica ("model": shard x context x tensor), unless tensor
// parallelism gave each of them a slice of its own, whose rows are split over the ranks that have
// the same slice ("weights": shard x context). So every rank holds numbers that no other of its
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
#include "trainer/parallel/shard_bucket.h"
#include "trainer/parallel/tensor_parallel.h"

namespace cosmos::trainer {

struct ShardOptions {
  /// false: keep a block's parameters from forward to backward (ZeRO stage 2).
  bool reshard_after_forward = true;
};

/// What is gathered together: the children of the model, or of a container in it (a module without
/// parameters of its own and with numbered children), with their paths.
struct ShardUnit {
  std::string name;
  std::shared_ptr<torch::nn::Module> block;
};
std::vector<ShardUnit> shard_units(const torch::nn::Module& model);

class FullyShard : public modules::BlockRunner, public std::enable_shared_from_this<FullyShard> {
 public:
  /// Shards the model in place; its blocks are shard_units(). `inner` runs their computation
  /// (activation checkpointing), null for a plain call. Weights must be the same on all ranks, but
  /// for those in `slices`, which TensorParallel has split.
  FullyShard(modules::Model& model, const Mesh& mesh, ShardOptions options,
             std::shared_ptr<modules::BlockRunner> inner, TensorSlices slices = {});

  Tensors run(const std::string& name, torch::nn::Module& block, const Tensors& inputs,
              const modules::BlockFn& fn) override;

  /// Before a backward. False: its gradients stay whole on this rank and are added up, to be
  /// reduced with those of the last micro-batch.
  void set_reduce(bool reduce) { reduce_ = reduce; }
  /// Call after every backward.
  void finish_backward();

  /// This rank's rows of the trained parameters, by parameter name; leaves with gradients.
  NamedTensors shards() const;

  /// The whole tensors of which `shards` are this rank's rows, by parameter name (Adam moments,
  /// averages, weights). Every rank calls it with the same names.
  TensorMap gather(const TensorMap& shards) const;
  /// Copies this rank's part of the whole parameter `name`, rounded as the model's dtype rounds it.
  void load(const std::string& name, const Tensor& whole);
  /// What this rank holds of a whole tensor in the place of parameter `name`, a view.
  Tensor part_of(const std::string& name, const Tensor& whole) const;
  /// What this rank holds of a parameter, trained or frozen; undefined when it is no parameter.
  Tensor shard(const std::string& name) const;

  /// While one lives, the model's parameters are whole. Every rank makes one at the same time.
  class Whole {
   public:
    explicit Whole(FullyShard* sharded);  ///< null: nothing happens
    ~Whole();
    Whole(const Whole&) = delete;
    Whole& operator=(const Whole&) = delete;

   private:
    FullyShard* sharded_;
    std::vector<std::pair<Tensor, Tensor>>
        slices_;  ///< parameters that show more, and what they had
  };
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
  /// Bytes of parameters, gradients and kept sums that this rank holds between steps.
  int64_t resident_bytes() const;

 private:
  /// A block's buckets, one a dtype and group.
  struct Unit {
    std::string name;
    std::vector<std::unique_ptr<ShardBucket>> buckets;
    bool trained = false;
    bool expects_backward = false;             ///< ran with gradients, and its backward did not yet
    bool reduced = false;                      ///< in this backward
    Unit *before = nullptr, *after = nullptr;  ///< neighbours in the last forward
  };

  const Group& row_group(const std::string& name) const;
  void add_unit(const std::string& name, torch::nn::Module& block);
  Unit* unit_of(const std::string& name, torch::nn::Module& block);
  void unshard(Unit& unit);
  void reshard(Unit& unit);
  void enter(Unit& unit);
  void settle();
  void reduce(Unit& unit);
  void before_backward(Unit& unit);
  void after_backward(Unit& unit);
  Tensors mark_inputs(Unit& unit, const Tensors& inputs);
  void mark_outputs(Unit& unit, const Tensors& outputs);

  const Mesh& mesh_;
  ShardOptions options_;
  TensorSlices slices_;
  std::shared_ptr<modules::BlockRunner> inner_;
  std::vector<std::unique_ptr<Unit>> units_;
  std::map<const torch::nn::Module*, Unit*> by_block_;
  std::map<std::string, const ShardBucket::Param*> by_name_;
  Unit *first_ = nullptr, *last_ = nullptr;  ///< to run in a forward: the first ever, the latest
  bool reduce_ = true;
  ShardBucket* reducing_ = nullptr;  ///< whose reduction is under way
  ShardTraffic traffic_;
};

}  // namespace cosmos::trainer
