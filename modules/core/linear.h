#pragma once

// Every product with a weight goes through Linear, so that adapters (LoRA, DoRA), quantised bases
// and column/row parallelism are applied from outside, in one fixed order:
// collective(adapter(product)).

#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "modules/core/tensor.h"

namespace cosmos::modules {

class LinearImpl;

/// Changes what a Linear computes without the model knowing. One is attached at most.
class LinearAdapter : public torch::nn::Module {
 public:
  /// Adapts `base` = x Wᵀ + b.  x: [..., in], base: [..., out] -> [..., out]
  virtual Tensor adapt(const Tensor& x, const Tensor& base, const LinearImpl& linear) = 0;
  /// The adapted Linear, from x on: adapt() of its product, or both as one operator.
  virtual Tensor forward(const Tensor& x, const LinearImpl& linear);
};

/// y = x Wᵀ + b.  x: [..., in_features] -> [..., out_features].  Parameter names as
/// torch.nn.Linear.
class LinearImpl : public torch::nn::Module {
 public:
  LinearImpl(int64_t in_features, int64_t out_features, bool bias = true);

  Tensor forward(const Tensor& x);

  /// Attaches `adapter` as the child module "adapter"; its parameters then belong to the model.
  void set_adapter(std::shared_ptr<LinearAdapter> adapter);
  /// Detaches and returns the adapter (null when there is none).
  std::shared_ptr<LinearAdapter> take_adapter();
  const std::shared_ptr<LinearAdapter>& adapter() const { return adapter_; }

  int64_t in_features() const { return weight.size(1); }
  int64_t out_features() const { return weight.size(0); }

  Tensor weight;  ///< [out_features, in_features]
  Tensor bias;    ///< [out_features], undefined when bias = false

 private:
  std::shared_ptr<LinearAdapter> adapter_;
};
TORCH_MODULE(Linear);

struct NamedLinear {
  std::string name;  ///< path in the model: transformer_blocks.3.attn1.to_q
  std::shared_ptr<LinearImpl> linear;
};

/// Every Linear below `model`, in registration order, each once: what adapters are attached to.
std::vector<NamedLinear> named_linears(const torch::nn::Module& model);

/// Several products of one input (q, k, v; gate, up), called as one group so that gathers, casts
/// and shared factors happen once.
Tensors linear_group(const Tensor& x, std::initializer_list<Linear> linears);

}  // namespace cosmos::modules
