// fp8_mm of fp8_linear.h: tensor cores where they take the operands, else dequantised.

#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/_scaled_mm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>

#include "ops/core/check.h"
#include "ops/core/registry.h"
#include "ops/fp8/fp8_driver.h"
#include "ops/fp8/fp8_linear.h"

#ifdef COSMOS_CUDA
#include <ATen/cuda/CUDAContextLight.h>
#endif

namespace cosmos::ops {
namespace {

using at::Tensor;
using Bias = std::optional<Tensor>;

/// One factor of the product, [rows, K].
struct Operand {
  const Tensor& values;
  const Tensor& scale;
  Fp8Granularity granularity;
  bool blocks;
};

Operand operand(const char* name, const Tensor& values, const Tensor& scale) {
  require(
      (values.scalar_type() == at::kFloat8_e4m3fn || values.scalar_type() == at::kFloat8_e5m2) &&
          values.dim() == 2,
      "fp8_mm: ", name, ": expected float8_e4m3fn or float8_e5m2 [rows, K], got ",
      describe(values));
  require(scale.scalar_type() == at::kFloat && scale.device() == values.device(), "fp8_mm: scale_",
          name, ": expected float32 on ", values.device(), ", got ", describe(scale));
  const Fp8Granularity g = driver::fp8_granularity_of("fp8_mm", values, scale);
  return {values, scale, g, g == Fp8Granularity::k1x128 || g == Fp8Granularity::k128x128};
}

#ifdef COSMOS_CUDA
/// What cuBLASLt asks of scales of blocks (sm_90 alone has them).
bool block_takes(const Operand& x) {
  if (x.granularity == Fp8Granularity::k1x128) return x.values.size(0) % 4 == 0;
  return x.values.size(1) % 512 == 0;
}

bool scaled_mm_takes(const Operand& a, const Operand& b) {
  const int64_t k = a.values.size(1), n = b.values.size(0);
  if (!a.values.is_cuda() || a.values.numel() == 0 || b.values.numel() == 0) return false;
  if (k % 16 != 0 || n % 16 != 0) return false;
  if (a.values.scalar_type() == at::kFloat8_e5m2 && b.values.scalar_type() == at::kFloat8_e5m2)
    return false;
  const auto* device = at::cuda::getDeviceProperties(a.values.get_device());
  if (a.blocks && b.blocks)
    return device->major == 9 && k % 128 == 0 && block_takes(a) && block_takes(b) &&
           !(a.granularity == Fp8Granularity::k128x128 &&
             b.granularity == Fp8Granularity::k128x128);
  if (a.granularity != b.granularity) return false;
  const int capability = device->major * 10 + device->minor;
  return capability >= (a.granularity == Fp8Granularity::kRow ? 90 : 89);
}

/// Scales of 1x128 with rows fastest, as cuBLASLt reads them; the others as they are.
Tensor laid_out(const Operand& x) {
  return x.granularity == Fp8Granularity::k1x128 ? x.scale.t().contiguous().t()
                                                 : x.scale.contiguous();
}

Tensor scaled_mm(const Operand& a, const Operand& b, at::ScalarType dtype, const Bias& bias,
                 bool fast) {
  const bool narrow = dtype == at::kBFloat16 || (dtype == at::kHalf && !a.blocks);
  const at::ScalarType made = narrow ? dtype : at::kFloat;
  const Tensor scale_a = laid_out(a), scale_b = laid_out(b);
  const Tensor out = at::_scaled_mm(a.values.contiguous(), b.values.contiguous().t(), scale_a,
                                    scale_b.dim() == 2 ? scale_b.t() : scale_b,
                                    bias && narrow ? Bias(bias->to(made)) : Bias(),
                                    /*scale_result=*/{}, made, fast && !a.blocks);
  return (bias && !narrow ? out + *bias : out).to(dtype);
}
#endif

Tensor dequantised_mm(const Operand& a, const Operand& b, at::ScalarType dtype, const Bias& bias) {
  const at::ScalarType wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  Tensor out;
  if (a.blocks || b.blocks) {
    out = at::mm(fp8_dequantize(a.values, a.scale, wide),
                 fp8_dequantize(b.values, b.scale, wide).t());
  } else {
    const Tensor one = at::ones({}, a.scale.options());
    out = at::mm(fp8_dequantize(a.values, one, wide), fp8_dequantize(b.values, one, wide).t());
    out.mul_(a.scale).mul_(b.scale.dim() == 2 ? b.scale.t() : b.scale);
  }
  if (bias) out.add_(*bias);
  return out.to(dtype);
}

Tensor mm(const Tensor& a, const Tensor& scale_a, const Tensor& b, const Tensor& scale_b,
          at::ScalarType dtype, const Bias& bias, bool fast_accumulation) {
  const Operand left = operand("a", a, scale_a), right = operand("b", b, scale_b);
  require(a.sym_size(1) == b.sym_size(1) && a.device() == b.device(),
          "fp8_mm: expected a [M, K] and b [N, K] on one device, got ", describe(a), " and ",
          describe(b));
  require(!bias || (bias->dim() == 1 && bias->sym_size(0) == b.sym_size(0) &&
                    bias->device() == b.device()),
          "fp8_mm: bias: expected [", b.sym_size(0), "] on ", b.device(), ", got ",
          bias ? describe(*bias) : "none");
  if (a.is_meta())
    return at::empty_symint({a.sym_size(0), b.sym_size(0)}, a.options().dtype(dtype));
#ifdef COSMOS_CUDA
  if (scaled_mm_takes(left, right)) return scaled_mm(left, right, dtype, bias, fast_accumulation);
#endif
  return dequantised_mm(left, right, dtype, bias);
}

/// The product alone is no function of what requires grad: fp8_linear is.
Tensor mm_autograd(const Tensor& a, const Tensor& scale_a, const Tensor& b, const Tensor& scale_b,
                   at::ScalarType dtype, const Bias& bias, bool fast_accumulation) {
  const at::AutoDispatchBelowADInplaceOrView below;
  return fp8_mm(a, scale_a, b, scale_b, dtype, bias, fast_accumulation);
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def(
      "fp8_mm(Tensor a, Tensor scale_a, Tensor b, Tensor scale_b, ScalarType dtype, "
      "Tensor? bias=None, bool fast_accumulation=False) -> Tensor");
}

void register_devices(torch::Library& m) {
  m.impl("fp8_mm", mm);
}

COSMOS_REGISTER_DEVICES(register_devices)

TORCH_LIBRARY_IMPL(cosmos, Autograd, m) {
  m.impl("fp8_mm", mm_autograd);
}

}  // namespace

Tensor fp8_mm(const Tensor& a, const Tensor& scale_a, const Tensor& b, const Tensor& scale_b,
              at::ScalarType dtype, const Bias& bias, bool fast_accumulation) {
  static const auto op = operator_handle<decltype(mm)>("fp8_mm");
  return op.call(a, scale_a, b, scale_b, dtype, bias, fast_accumulation);
}

}  // namespace cosmos::ops
