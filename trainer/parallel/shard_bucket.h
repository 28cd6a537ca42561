#pragma once

// The parameters of one block that travel together: one dtype, one all-gather, one reduce-scatter.
//
// A module's parameter tensor always has its full shape. Its storage is filled while the block
// computes and has no bytes otherwise; views that autograd saved in between stay valid. What
// persists is this rank's shard: rows of dimension 0, float32 for trained parameters. Shards that
// are away (on the host) go to the device for a gather and get their gradients back there. Weights
// that travel in 8 bits (Fp8Gather) are never filled: products read the gathered bytes.

#include <string>
#include <vector>

#include "modules/core/tensor.h"
#include "trainer/offload/away_memory.h"
#include "trainer/parallel/fp8_gather.h"
#include "trainer/parallel/mesh.h"

namespace cosmos::trainer {

/// Bytes that this rank handed to collectives so far.
struct ShardTraffic {
  int64_t gathered = 0, reduced = 0;
};

/// Gives the tensor's storage `bytes` bytes of fresh memory (0: none). Views keep pointing at it.
void set_storage(const Tensor& x, std::size_t bytes);

struct BucketOptions {
  std::unique_ptr<Fp8Gather> fp8{};    ///< null: parameters travel as they are
  std::shared_ptr<AwayMemory> away{};  ///< of shards and their gradients; null: on the device
};

class ShardBucket {
 public:
  struct Param {
    std::string name;
    Tensor full;   ///< the module's own tensor
    Tensor shard;  ///< [rows of this rank, ...]; a leaf that requires grad when trained
    Tensor sum{};  ///< gradients of micro-batches that were not reduced yet, full shape
    bool trained = false;
  };

  /// Takes over: copies this rank's rows and frees the parameters' storage. All of one dtype, with
  /// rows on the ranks of `shards`.
  /// The rows of a hollow parameter are zeros, to be filled.
  ShardBucket(const std::vector<std::pair<std::string, Tensor>>& params, const Group& shards,
              const Mesh& mesh, BucketOptions options = {});

  /// Of weights that travel in 8 bits: their scales, from the weights as they are now. Begins, and
  /// ends, one all-reduce; nothing of other weights.
  void begin_scales(bool learning, ShardTraffic& traffic);
  void end_scales();

  /// Begins the all-gather, unless the parameters are there or under way.
  void prefetch(ShardTraffic& traffic);
  /// Makes the parameters whole.
  void unshard(ShardTraffic& traffic);
  /// Frees them.
  void reshard();
  /// Forgets a gather that nobody used: the shards are about to change.
  void drop_prefetched();

  /// Adds the parameters' gradients to the sums over micro-batches; no communication.
  void keep_gradients();
  /// Begins the reduce-scatter of the gradients (and kept sums) and drops them. A parameter without
  /// gradient counts as zero, so that ranks with different batches agree.
  void reduce(ShardTraffic& traffic);
  /// Ends it: the shards' gradients are those of the mean of all ranks' losses.
  void finish_reduce();

  const std::vector<Param>& params() const { return params_; }
  bool trained() const { return !trained_.empty(); }

 private:
  bool keeps_gradients() const;
  Tensor new_shard(at::IntArrayRef sizes, torch::Dtype dtype) const;
  Tensors rows() const;
  void copy_in(const Tensor& gathered) const;

  const Group* shard_group_;
  const Group* replica_group_;
  double losses_;  ///< every rank computes one, a pipeline's together; the objective is their mean
  std::unique_ptr<Fp8Gather> fp8_;
  std::shared_ptr<AwayMemory> away_;
  at::Device device_;
  std::vector<Param> params_;
  std::vector<std::size_t> trained_;  ///< positions in params_
  std::vector<int64_t> split_, trained_split_;
  int64_t flat_ = 0, trained_flat_ = 0;  ///< elements of one rank's part

  bool whole_ = false;
  Tensor gathered_;  ///< [ranks, flat], while a gather is under way
  Pending gather_;
  Tensor chunked_, reduced_;  ///< while a reduction is under way
  Pending reduce_;
};

}  // namespace cosmos::trainer
