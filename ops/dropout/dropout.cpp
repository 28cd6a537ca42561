// dropout.h for the dispatcher: schema, autograd, and the entry point that C++ calls.

#include "ops/dropout/dropout.h"

#include <torch/csrc/autograd/custom_function.h>

#include "ops/core/check.h"
#include "ops/core/path.h"
#include "ops/core/registry.h"
#include "ops/dropout/dropout_driver.h"

namespace cosmos::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* kName = "seeded_dropout";

struct SeededDropoutFunction : torch::autograd::Function<SeededDropoutFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, double p,
                        const std::vector<int64_t>& seeds) {
    const at::AutoDispatchBelowADInplaceOrView below;
    ctx->saved_data["p"] = p;
    ctx->saved_data["seeds"] = seeds;
    return seeded_dropout(x, p, seeds);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {seeded_dropout(grads[0], ctx->saved_data["p"].toDouble(),
                           ctx->saved_data["seeds"].toIntVector()),
            Tensor(), Tensor()};
  }
};

void check(const Tensor& x, double p, at::IntArrayRef seeds) {
  dtype_of(kName, "x", x);
  check_dropout(kName, x, p, seeds);
}

Tensor seeded_dropout_autograd(const Tensor& x, double p, at::IntArrayRef seeds) {
  check(x, p, seeds);
  if (use_reference(x)) return reference::seeded_dropout(x, p, seeds);
  return SeededDropoutFunction::apply(x, p, seeds.vec());
}

Tensor seeded_dropout_plain(const Tensor& x, double p, at::IntArrayRef seeds) {
  check(x, p, seeds);
  return driver::seeded_dropout(x, p, seeds);
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def("seeded_dropout(Tensor x, float p, int[] seeds) -> Tensor");
}

void register_devices(torch::Library& m) {
  m.impl("seeded_dropout", seeded_dropout_plain);
}

COSMOS_REGISTER_DEVICES(register_devices)

TORCH_LIBRARY_IMPL(cosmos, Autograd, m) {
  m.impl("seeded_dropout", seeded_dropout_autograd);
}

}  // namespace

Tensor seeded_dropout(const Tensor& x, double p, at::IntArrayRef seeds) {
  static const auto op = operator_handle<decltype(seeded_dropout)>(kName);
  return op.call(x, p, seeds);
}

}  // namespace cosmos::ops
