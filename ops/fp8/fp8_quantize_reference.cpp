#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include "ops/core/check.h"
#include "ops/fp8/fp8_driver.h"
#include "ops/fp8/fp8_kernel.h"

namespace cosmos::ops::reference {
namespace {

using at::Tensor;

/// The largest magnitude in each block of height x width.
Tensor block_amax(const Tensor& m, int64_t height, int64_t width) {
  const int64_t down = blocks_of(m.size(0), height), across = blocks_of(m.size(1), width);
  const Tensor padded =
      at::constant_pad_nd(m.abs(), {0, across * width - m.size(1), 0, down * height - m.size(0)});
  return padded.view({down, height, across, width}).amax({1, 3});
}

/// One scale for every element.
Tensor spread(const Tensor& scale, const Tensor& m, int64_t height, int64_t width) {
  return scale.repeat_interleave(height, 0)
      .narrow(0, 0, m.size(0))
      .repeat_interleave(width, 1)
      .narrow(1, 0, m.size(1));
}

struct BlockShape {
  int64_t height, width;
};

BlockShape block_shape(Fp8Granularity granularity, const Tensor& m) {
  switch (granularity) {
    case Fp8Granularity::kTensor:
      return {m.size(0), m.size(1)};
    case Fp8Granularity::kRow:
      return {1, m.size(1)};
    case Fp8Granularity::k1x128:
      return {1, kFp8Block};
    case Fp8Granularity::k128x128:
      break;
  }
  return {kFp8Block, kFp8Block};
}

Tensor matrix_of(const Tensor& x) {
  const int64_t columns = x.dim() > 0 ? x.size(-1) : 1;
  return x.reshape({x.numel() / columns, columns});
}

}  // namespace

Tensor fp8_scale(const Tensor& amax, const Tensor& max, bool power_of_two) {
  Tensor scale = (amax / max).clamp_min(0x1p-126);
  if (power_of_two) {
    const Tensor up = scale.view(at::kInt).add(0x007fffff).bitwise_and(0x7f800000).view(at::kFloat);
    scale = at::where(scale.isfinite(), up, scale);
  }
  return at::where(amax == 0, at::ones_like(scale), scale);
}

Fp8Tensor fp8_quantize(const Tensor& x, const Fp8Options& options,
                       const std::optional<Tensor>& given, bool transposed) {
  const at::NoGradGuard no_grad;
  const auto symbolic = driver::fp8_scale_sizes(x, options.granularity, transposed);
  const auto sizes = C10_AS_INTARRAYREF_SLOW(symbolic);
  const auto floats = x.options().dtype(at::kFloat);
  std::vector<int64_t> shape = x.sizes().vec();
  if (transposed) shape = {x.size(-1), driver::fp8_rows_of(x).expect_int()};
  if (x.numel() == 0)
    return {at::empty(shape, x.options().dtype(options.dtype)), at::ones(sizes, floats),
            at::zeros(sizes, floats)};
  Tensor m = matrix_of(x).to(at::kFloat);
  if (transposed) m = m.t();
  const auto [height, width] = block_shape(options.granularity, m);
  const double max = fp8_largest(options.dtype);
  const Tensor amax = block_amax(m, height, width);
  const Tensor scale = given ? given->view(amax.sizes())
                             : fp8_scale(amax, at::full({}, max, floats), options.power_of_two);
  const Tensor scaled = m * spread(scale, m, height, width).reciprocal();
  return {scaled.clamp(-max, max).to(options.dtype).contiguous().view(shape),
          scale.clone().view(sizes), amax.view(sizes)};
}

Tensor fp8_dequantize(const Tensor& values, const Tensor& scale, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  if (values.numel() == 0) return at::empty(values.sizes(), values.options().dtype(dtype));
  const Tensor m = matrix_of(values).to(at::kFloat);
  const auto granularity = driver::fp8_granularity_of("fp8_dequantize", values, scale);
  const auto [height, width] = block_shape(granularity, m);
  const Tensor blocks = scale.reshape({blocks_of(m.size(0), height), blocks_of(m.size(1), width)});
  return (m * spread(blocks, m, height, width)).to(dtype).view(values.sizes());
}

}  // namespace cosmos::ops::reference
