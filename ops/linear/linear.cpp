// linear.h for the dispatcher: schema, the choice of product, and the entry point that C++ calls.

#include "ops/linear/linear.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <utility>

#include "ops/core/check.h"
#include "ops/core/isa.h"
#include "ops/core/path.h"
#include "ops/core/registry.h"
#include "ops/linear/linear_kernel.h"

namespace cosmos::ops {

COSMOS_SIMD_KERNEL(few_row_linear, FewRowLinear)

namespace {

using at::Tensor;
using Bias = std::optional<Tensor>;

constexpr auto kName = "linear";

thread_local bool stream_few_rows = false;

void check_arguments(const Tensor& x, const Tensor& weight, const Bias& bias) {
  dtype_of(kName, "x", x);
  check_alike(kName, "x", x, "weight", weight);
  require(x.dim() >= 1 && weight.dim() == 2 && weight.sym_size(1) == x.sym_size(-1), kName,
          ": weight: expected [out, in] for x [..., in], got ", describe(weight), " for x ",
          describe(x));
  if (!bias) return;
  check_alike(kName, "x", x, "bias", *bias);
  require(bias->dim() == 1 && bias->sym_size(0) == weight.sym_size(0), kName, ": bias: expected [",
          weight.sym_size(0), "] for weight ", describe(weight), ", got ", describe(*bias));
}

/// A weight that is not contiguous is read in no order that streams.
bool streams(const Tensor& x, const Tensor& weight) {
  const bool ours = x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16;
  return stream_few_rows && x.is_cpu() && ours && weight.is_contiguous() && x.numel() > 0 &&
         x.numel() <= kFewRows * x.size(-1) && !use_reference(x);
}

Tensor linear_plain(const Tensor& x, const Tensor& weight, const Bias& bias) {
  check_arguments(x, weight, bias);
  if (!streams(x, weight)) return at::linear(x, weight, bias);
  auto shape = x.sizes().vec();
  shape.back() = weight.size(0);
  const Tensor y = at::empty(shape, x.options());
  const Tensor wide = x.to(at::kFloat).contiguous();
  const Tensor b = bias ? bias->contiguous() : Tensor();
  const FewRowLinear p{.dtype = dtype_of(kName, "x", x),
                       .rows = x.numel() / x.size(-1),
                       .in = x.size(-1),
                       .out = weight.size(0),
                       .x = wide.const_data_ptr<float>(),
                       .weight = weight.const_data_ptr(),
                       .bias = bias ? b.const_data_ptr() : nullptr,
                       .y = y.data_ptr()};
  // A thread is worth its start for some 64k products.
  const int64_t grain = 1 + 65536 / p.in;
  at::parallel_for(0, p.out, grain,
                   [&](int64_t begin, int64_t end) { few_row_linear(p, begin, end); });
  return y;
}

bool wants_gradient(const Tensor& x, const Tensor& weight, const Bias& bias) {
  return at::GradMode::is_enabled() &&
         (x.requires_grad() || weight.requires_grad() || (bias && bias->requires_grad()));
}

Tensor linear_autograd(const Tensor& x, const Tensor& weight, const Bias& bias) {
  if (wants_gradient(x, weight, bias)) {
    check_arguments(x, weight, bias);
    return at::linear(x, weight, bias);
  }
  const at::AutoDispatchBelowADInplaceOrView below;
  static const auto op = operator_handle<decltype(linear_plain)>(kName);
  return op.call(x, weight, bias);
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def("linear(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor");
}

void register_devices(torch::Library& m) {
  m.impl(kName, linear_plain);
}

COSMOS_REGISTER_DEVICES(register_devices)

TORCH_LIBRARY_IMPL(cosmos, Autograd, m) {
  m.impl(kName, linear_autograd);
}

}  // namespace

StreamFewRows::StreamFewRows() : before_(std::exchange(stream_few_rows, true)) {}

StreamFewRows::~StreamFewRows() {
  stream_few_rows = before_;
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  static const auto op = operator_handle<decltype(linear_plain)>(kName);
  return op.call(x, weight, bias.defined() ? Bias(bias) : std::nullopt);
}

}  // namespace cosmos::ops
