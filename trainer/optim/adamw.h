#pragma once

// AdamW (Loshchilov and Hutter, ICLR 2019) over the trainable parameters of a model, with float32
// master weights where the model holds bfloat16, and clipping by global norm without a host sync.

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "modules/core/tensor.h"
#include "trainer/config/config.h"
#include "trainer/offload/away_memory.h"

namespace cosmos::trainer {

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

/// Parameters that require grad, each once: a tied weight appears under its first name.
NamedTensors trainable_parameters(const torch::nn::Module& module);

/// Weights that follow the updated ones: average += (1 - decay) * (weight - average).
struct Average {
  const TensorMap* weights = nullptr;  ///< float32, by parameter name; null: none
  double decay = 0;
};

class AdamW {
 public:
  /// The moments are in `away` where there is one (with the parameters, then on the CPU, too), else
  /// beside their parameters.
  AdamW(const NamedTensors& parameters, OptimizerConfig config,
        std::shared_ptr<AwayMemory> away = nullptr);

  /// Adds what backward left in the parameters' gradients to the float32 sums, and frees it. Call
  /// after every micro-batch. Nothing to do for float32 parameters, which sum in place.
  void collect_gradients();

  /// One update with learning rate `lr`. Gradients are scaled to a global norm of at most
  /// `clip_norm` (0 = never). Parameters without gradient stay as they are. When the norm or `loss`
  /// is not finite nothing changes. Returns the norm before clipping, a scalar tensor on the
  /// parameters' device, and drops the gradients. `average` follows in the same pass.
  Tensor step(double lr, double clip_norm, const Tensor& loss, const Average& average = {});

  /// The parameters are one rank's shards: `sum` adds a scalar up over the ranks that hold the
  /// others, for the norm of the whole gradient.
  void set_sum_over_shards(std::function<Tensor(Tensor)> sum) { sum_over_shards_ = std::move(sum); }

  /// Bytes of the moments.
  int64_t moment_bytes() const;

  /// What the optimiser updates: the parameter itself, or its float32 master.
  NamedTensors masters() const;
  /// Copies masters into the model's parameters where they differ.
  void publish();

  /// "exp_avg.NAME", "exp_avg_sq.NAME", "step.NAME" and, for parameters with one, "master.NAME".
  /// 8-bit moments are given in float32, so that any number of ranks and either kind can go on;
  /// they become the same codes again.
  TensorMap state() const;
  /// Inverse of state(). Throws Error listing missing and unexpected keys and wrong shapes.
  void load_state(const TensorMap& state, const std::string& where);

 private:
  struct Slot {
    std::string name;
    Tensor param;       ///< the model's, in its dtype
    Tensor master;      ///< float32; the same tensor as param when that is float32
    Tensor exp_avg;     ///< first moment, float32 or 8-bit codes with scales
    Tensor exp_avg_sq;  ///< second moment
    Tensor exp_avg_scale, exp_avg_sq_scale;
    Tensor step;  ///< updates so far, a float32 scalar
    bool decay;
    double lr_scale;
  };
  bool coded() const { return config_.moments == "int8"; }
  void encode(Slot& slot, const Tensor& exp_avg, const Tensor& exp_avg_sq) const;
  Tensor zeros_like(const Tensor& master) const;
  /// One pass over the parameters with this decay and factor on lr.
  void update(bool decay, double lr_scale, double lr, const Tensor& clip,
              const Average& average) const;

  OptimizerConfig config_;
  std::shared_ptr<AwayMemory> away_;
  std::vector<Slot> slots_;
  std::function<Tensor(Tensor)> sum_over_shards_;
};

}  // namespace cosmos::trainer
