#include "modules/core/postponed_gradients.h"

#include <optional>
#include <torch/csrc/autograd/custom_function.h>
#include <utility>

namespace cosmos::modules {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void PostponedGradients::add(std::function<void()> gradient) {
  const std::lock_guard lock(mutex_);
  gradients_.push_back(std::move(gradient));
}

std::vector<std::function<void()>> PostponedGradients::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(gradients_, {});
}

struct PostponedLinear : torch::autograd::Function<PostponedLinear> {
  struct Later : torch::CustomClassHolder {
    std::shared_ptr<PostponedGradients> gradients;
    Tensor weight;  ///< the leaf itself, for its grad
  };

  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const std::optional<Tensor>& bias, const c10::intrusive_ptr<Later>& later) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["later"] = c10::IValue::make_capsule(later);
    ctx->saved_data["bias"] = bias.has_value();
    return torch::linear(x, weight, bias);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto later =
        c10::static_intrusive_pointer_cast<Later>(ctx->saved_data["later"].toCapsule());
    const Tensor grad = grads[0];
    later->gradients->add([grad, x = saved[0].detach(), weight = later->weight] {
      const torch::NoGradGuard no_grad;
      const Tensor found = grad.flatten(0, -2).t().matmul(x.flatten(0, -2));
      Tensor& sum = weight.mutable_grad();
      if (sum.defined())
        sum.add_(found);
      else
        sum = found;
    });
    Tensor x_grad, bias_grad;
    if (ctx->needs_input_grad(0)) x_grad = grad.matmul(saved[1]);
    if (ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2))
      bias_grad = grad.flatten(0, -2).sum(0);
    return {x_grad, Tensor(), bias_grad, Tensor()};
  }
};

Tensor postponed_linear(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const std::shared_ptr<PostponedGradients>& later) {
  auto handle = c10::make_intrusive<PostponedLinear::Later>();
  handle->gradients = later;
  handle->weight = weight;
  // Function takes an undefined tensor for a variable.
  const auto given = bias.defined() ? std::optional<Tensor>(bias) : std::nullopt;
  return PostponedLinear::apply(x, weight, given, handle);
}

}  // namespace cosmos::modules
