#include "trainer/parallel/linear_map.h"

#include <torch/csrc/autograd/custom_function.h>

namespace cosmos::trainer {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct LinearMap : torch::autograd::Function<LinearMap> {
  struct Maps : torch::CustomClassHolder {
    std::function<Tensor(const Tensor&)> map, adjoint;
  };

  static Tensor forward(AutogradContext* ctx, const c10::intrusive_ptr<Maps>& maps,
                        const Tensor& x) {
    ctx->saved_data["maps"] = c10::IValue::make_capsule(maps);
    return maps->map(x);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto maps = c10::static_intrusive_pointer_cast<Maps>(ctx->saved_data["maps"].toCapsule());
    return {Tensor(), maps->adjoint(grads[0])};
  }
};

Tensor apply_linear(std::function<Tensor(const Tensor&)> map,
                    std::function<Tensor(const Tensor&)> adjoint, const Tensor& x) {
  auto maps = c10::make_intrusive<LinearMap::Maps>();
  maps->map = std::move(map);
  maps->adjoint = std::move(adjoint);
  return LinearMap::apply(maps, x);
}

}  // namespace cosmos::trainer
