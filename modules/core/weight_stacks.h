#pragma once

// The seam of Linear (linear.h) for weights that are stacked: one parameter [E, out, in] is the
// weights of E products (a mixture's experts), and adapters are attached from outside.

#include <memory>
#include <string>
#include <vector>

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// Changes the products with one stack without the model knowing.
class StackAdapter : public torch::nn::Module {
 public:
  /// base[i] = x[i] W[index[i]]ᵀ.  x[i]: [n_i, in], base[i]: [n_i, out] -> the same shapes
  virtual Tensors adapt(const Tensors& x, const Tensors& base,
                        const std::vector<int64_t>& index) = 0;
};

/// A module whose own parameters are stacks.
class WeightStacksImpl : public torch::nn::Module {
 public:
  struct Stack {
    std::string name;  ///< of the parameter
    Tensor weight;     ///< [E, out, in]
    std::shared_ptr<StackAdapter> adapter = nullptr;
  };
  /// In registration order.
  const std::vector<Stack>& stacks() const { return stacks_; }

  /// Attaches `adapter` as the child module "adapter_NAME"; its parameters then belong to the
  /// model.
  void set_adapter(const std::string& name, std::shared_ptr<StackAdapter> adapter);
  /// Detaches and returns the adapter of a stack (null when there is none).
  std::shared_ptr<StackAdapter> take_adapter(const std::string& name);

 protected:
  Tensor register_stack(const std::string& name, const Tensor& weight);
  /// x[i] W[index[i]]ᵀ of the stack at `position`, adapted.
  Tensors products(std::size_t position, const Tensors& x, const std::vector<int64_t>& index) const;

 private:
  Stack& find(const std::string& name);

  std::vector<Stack> stacks_;
};

struct NamedStacks {
  std::string name;  ///< path in the model: model.layers.3.mlp.experts
  std::shared_ptr<WeightStacksImpl> module;
};

/// Every module of stacks below `model`, in registration order.
std::vector<NamedStacks> named_stacks(const torch::nn::Module& model);

}  // namespace cosmos::modules
