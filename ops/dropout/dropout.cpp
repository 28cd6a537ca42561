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
                        const std::vector<int64_t>& seeds, const std::vector<int64_t>& slice) {
    const at::AutoDispatchBelowADInplaceOrView below;
    ctx->saved_data["p"] = p;
    ctx->saved_data["seeds"] = seeds;
    ctx->saved_data["slice"] = slice;
    return seeded_dropout(x, p, seeds, slice);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {seeded_dropout(grads[0], ctx->saved_data["p"].toDouble(),
                           ctx->saved_data["seeds"].toIntVector(),
                           ctx->saved_data["slice"].toIntVector()),
            Tensor(), Tensor(), Tensor()};
  }
};

void check(const Tensor& x, double p, at::IntArrayRef seeds, at::IntArrayRef slice) {
  dtype_of(kName, "x", x);
  check_dropout(kName, x, p, seeds, slice);
}

Tensor seeded_dropout_autograd(const Tensor& x, double p, at::IntArrayRef seeds,
                               at::IntArrayRef slice) {
  check(x, p, seeds, slice);
  if (use_reference(x)) return reference::seeded_dropout(x, p, seeds, slice);
  return SeededDropoutFunction::apply(x, p, seeds.vec(), slice.vec());
}

Tensor seeded_dropout_plain(const Tensor& x, double p, at::IntArrayRef seeds,
                            at::IntArrayRef slice) {
  check(x, p, seeds, slice);
  return driver::seeded_dropout(x, p, seeds, slice);
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def("seeded_dropout(Tensor x, float p, int[] seeds, int[] slice=[]) -> Tensor");
}

void register_devices(torch::Library& m) {
  m.impl("seeded_dropout", seeded_dropout_plain);
}

COSMOS_REGISTER_DEVICES(register_devices)

TORCH_LIBRARY_IMPL(cosmos, Autograd, m) {
  m.impl("seeded_dropout", seeded_dropout_autograd);
}

}  // namespace

Tensor seeded_dropout(const Tensor& x, double p, at::IntArrayRef seeds, at::IntArrayRef slice) {
  static const auto op = operator_handle<decltype(seeded_dropout)>(kName);
  return op.call(x, p, seeds, slice);
}

}  // namespace cosmos::ops
