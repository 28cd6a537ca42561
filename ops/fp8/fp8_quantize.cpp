// fp8_quantize.h for the dispatcher: checks, schemas, and the entry points that C++ calls.

#include "ops/fp8/fp8_quantize.h"

#include <ATen/core/LegacyTypeDispatch.h>

#include "ops/core/check.h"
#include "ops/core/path.h"
#include "ops/core/registry.h"
#include "ops/fp8/fp8_driver.h"

namespace cosmos::ops {
namespace {

using at::Tensor;
using Scale = std::optional<Tensor>;
using Triple = std::tuple<Tensor, Tensor, Tensor>;
using Five = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

constexpr const char* kNames[] = {"tensor", "row", "1x128", "128x128"};

Fp8Options options_of(at::ScalarType dtype, c10::string_view granularity, bool power_of_two) {
  return {dtype, fp8_granularity(std::string(granularity)), power_of_two};
}

void check_quantize(const char* op, const Tensor& x, const Fp8Options& o, const Scale& scale,
                    bool transposed) {
  dtype_of(op, "x", x);
  require(o.dtype == at::kFloat8_e4m3fn || o.dtype == at::kFloat8_e5m2, op,
          ": dtype: expected float8_e4m3fn or float8_e5m2, got ", c10::toString(o.dtype));
  require(x.dim() > 0 || (o.granularity == Fp8Granularity::kTensor && !transposed), op,
          ": x: expected [..., columns], got ", describe(x));
  if (!scale) return;
  const auto sizes = driver::fp8_scale_sizes(x, o.granularity, transposed);
  require(scale->scalar_type() == at::kFloat && scale->device() == x.device() &&
              scale->sym_sizes() == c10::SymIntArrayRef(sizes),
          op, ": scale: expected float32 ", c10::SymIntArrayRef(sizes), " on ", x.device(),
          " for granularity ", kNames[static_cast<int>(o.granularity)], " of ", describe(x),
          ", got ", describe(*scale));
}

Triple quantize(const Tensor& x, at::ScalarType dtype, c10::string_view granularity,
                const Scale& scale, bool power_of_two, bool transposed) {
  const Fp8Options o = options_of(dtype, granularity, power_of_two);
  check_quantize("fp8_quantize", x, o, scale, transposed);
  if (!x.is_meta() && use_reference(x)) {
    const Fp8Tensor q = reference::fp8_quantize(x, o, scale, transposed);
    return {q.values, q.scale, q.amax};
  }
  const driver::Fp8Sides sides = driver::fp8_quantize(x, o, scale, !transposed, transposed);
  const Fp8Tensor& q = transposed ? sides.transposed : sides.plain;
  return {q.values, q.scale, q.amax};
}

Five quantize_pair(const Tensor& x, at::ScalarType dtype, c10::string_view granularity,
                   const Scale& scale, bool power_of_two) {
  const Fp8Options o = options_of(dtype, granularity, power_of_two);
  check_quantize("fp8_quantize_pair", x, o, scale, false);
  require(x.dim() > 0, "fp8_quantize_pair: x: expected [..., columns], got ", describe(x));
  require(!scale || o.granularity == Fp8Granularity::kTensor ||
              o.granularity == Fp8Granularity::k128x128,
          "fp8_quantize_pair: scale: expected none for granularity ",
          kNames[static_cast<int>(o.granularity)], ", whose transpose has scales of its own");
  if (!x.is_meta() && use_reference(x)) {
    const Scale scale_t = scale && scale->dim() == 2 ? scale->t() : scale;
    const Fp8Tensor q = reference::fp8_quantize(x, o, scale);
    const Fp8Tensor t = reference::fp8_quantize(
        x, o, scale_t ? Scale(scale_t->contiguous()) : std::nullopt, /*transposed=*/true);
    return {q.values, q.scale, t.values, t.scale, q.amax};
  }
  const auto [q, t] = driver::fp8_quantize(x, o, scale, true, true);
  return {q.values, q.scale, t.values, t.scale, q.amax};
}

Tensor dequantize(const Tensor& values, const Tensor& scale, at::ScalarType dtype) {
  constexpr const char* op = "fp8_dequantize";
  require(values.scalar_type() == at::kFloat8_e4m3fn || values.scalar_type() == at::kFloat8_e5m2,
          op, ": values: expected float8_e4m3fn or float8_e5m2, got ", describe(values));
  require(scale.scalar_type() == at::kFloat && scale.device() == values.device(), op,
          ": scale: expected float32 on ", values.device(), ", got ", describe(scale));
  require(
      dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf || dtype == at::kDouble,
      op, ": dtype: expected float32, bfloat16, float16 or float64, got ", c10::toString(dtype));
  driver::fp8_granularity_of(op, values, scale);
  // float64 has no CUDA kernel (use_reference looks at the tensor's own dtype).
  const bool wide_cuda = dtype == at::kDouble && use_reference(values.new_empty({0}, dtype));
  if (!values.is_meta() && (use_reference(values) || wide_cuda))
    return reference::fp8_dequantize(values, scale, dtype);
  return driver::fp8_dequantize(values, scale, dtype);
}

/// float8 counts as differentiable for autograd: say that nothing passes through.
template <typename Signature, typename... Args>
auto below_autograd(const char* name, const Args&... args) {
  const at::AutoDispatchBelowADInplaceOrView below;
  return operator_handle<Signature>(name).call(args...);
}

Triple quantize_autograd(const Tensor& x, at::ScalarType dtype, c10::string_view granularity,
                         const Scale& scale, bool power_of_two, bool transposed) {
  return below_autograd<decltype(quantize)>("fp8_quantize", x, dtype, granularity, scale,
                                            power_of_two, transposed);
}

Five quantize_pair_autograd(const Tensor& x, at::ScalarType dtype, c10::string_view granularity,
                            const Scale& scale, bool power_of_two) {
  return below_autograd<decltype(quantize_pair)>("fp8_quantize_pair", x, dtype, granularity, scale,
                                                 power_of_two);
}

Tensor dequantize_autograd(const Tensor& values, const Tensor& scale, at::ScalarType dtype) {
  return below_autograd<decltype(dequantize)>("fp8_dequantize", values, scale, dtype);
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def(
      "fp8_quantize(Tensor x, ScalarType dtype, str granularity, Tensor? scale=None, "
      "bool power_of_two=False, bool transposed=False) -> (Tensor values, Tensor scale_out, "
      "Tensor amax)");
  m.def(
      "fp8_quantize_pair(Tensor x, ScalarType dtype, str granularity, Tensor? scale=None, "
      "bool power_of_two=False) -> (Tensor values, Tensor scale_out, Tensor values_t, "
      "Tensor scale_t, Tensor amax)");
  m.def("fp8_dequantize(Tensor values, Tensor scale, ScalarType dtype) -> Tensor");
}

void register_devices(torch::Library& m) {
  m.impl("fp8_quantize", quantize);
  m.impl("fp8_quantize_pair", quantize_pair);
  m.impl("fp8_dequantize", dequantize);
}

COSMOS_REGISTER_DEVICES(register_devices)

TORCH_LIBRARY_IMPL(cosmos, Autograd, m) {
  m.impl("fp8_quantize", quantize_autograd);
  m.impl("fp8_quantize_pair", quantize_pair_autograd);
  m.impl("fp8_dequantize", dequantize_autograd);
}

}  // namespace

Fp8Granularity fp8_granularity(const std::string& name) {
  for (int i = 0; i < 4; ++i)
    if (name == kNames[i]) return static_cast<Fp8Granularity>(i);
  fail("fp8 granularity: expected tensor, row, 1x128 or 128x128, got ", name);
}

Fp8Tensor fp8_quantize(const Tensor& x, const Fp8Options& o, const Scale& scale, bool transposed) {
  static const auto op = operator_handle<decltype(quantize)>("fp8_quantize");
  auto [values, factor, amax] = op.call(x, o.dtype, kNames[static_cast<int>(o.granularity)], scale,
                                        o.power_of_two, transposed);
  return {values, factor, amax};
}

Fp8Pair fp8_quantize_pair(const Tensor& x, const Fp8Options& o, const Scale& scale) {
  static const auto op = operator_handle<decltype(quantize_pair)>("fp8_quantize_pair");
  auto [values, factor, values_t, factor_t, amax] =
      op.call(x, o.dtype, kNames[static_cast<int>(o.granularity)], scale, o.power_of_two);
  return {values, factor, values_t, factor_t, amax};
}

Tensor fp8_dequantize(const Tensor& values, const Tensor& scale, at::ScalarType dtype) {
  static const auto op = operator_handle<decltype(dequantize)>("fp8_dequantize");
  return op.call(values, scale, dtype);
}

}  // namespace cosmos::ops
