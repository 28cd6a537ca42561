// 8-bit moments (moment_codes.h) of whole tensors, in ATen operations: for checkpoints and for the
// plain formula.

#include "ops/adamw/moment_codes.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/full.h>
#include <ATen/ops/where.h>

#include "ops/adamw/adamw.h"
#include "ops/adamw/moment_codes_reference.h"
#include "ops/core/check.h"

namespace cosmos::ops {

using at::Tensor;

namespace {

/// [blocks, 256], zeros at the end.
Tensor in_blocks(const Tensor& x) {
  const int64_t rest = (kMomentBlock - x.numel() % kMomentBlock) % kMomentBlock;
  return at::constant_pad_nd(x.contiguous().flatten(), {0, rest}).view({-1, kMomentBlock});
}

/// The elements of `like` out of blocks.
Tensor out_of_blocks(const Tensor& blocks, const Tensor& like) {
  return blocks.flatten().narrow(0, 0, like.numel()).view(like.sizes());
}

}  // namespace

MomentCodes encode_moment(const Tensor& moment, bool second) {
  require(moment.defined() && moment.scalar_type() == at::kFloat,
          "encode_moment: expected float32, got ", describe(moment));
  return reference::encode_moment(moment, second, at::full({}, 0.5f, moment.options()));
}

Tensor decode_moment(const MomentCodes& moment) {
  const Tensor c = in_blocks(moment.codes).to(at::kFloat), scale = moment.scale.unsqueeze(1);
  if (moment.codes.scalar_type() == at::kChar) {
    const Tensor part = c * (1.f / 127);
    return out_of_blocks(scale * part * part.abs(), moment.codes).contiguous();
  }
  const Tensor square = (c * (1.f / 255)).square();
  return out_of_blocks(scale * square * square, moment.codes).contiguous();
}

namespace reference {

MomentCodes encode_moment(const Tensor& moment, bool second, const Tensor& chance) {
  const Tensor x = in_blocks(moment), chances = chance.dim() ? in_blocks(chance) : chance;
  const Tensor scale = x.numel() ? x.abs().amax(1) : x.new_zeros({0});
  const Tensor part = at::where(scale.unsqueeze(1) > 0, x.abs() / scale.unsqueeze(1), 0);
  const double most = second ? 255 : 127, power = second ? 4 : 2;
  const Tensor below = (most * part.pow(1 / power)).floor().clamp_max(most - 1);
  const Tensor from = (below / most).pow(power), to = ((below + 1) / most).pow(power);
  const Tensor code = below + (chances * (to - from) < part - from);
  const Tensor kept = second ? at::where((code == 0).logical_and(x > 0), 1, code) : code * x.sign();
  return {out_of_blocks(kept, moment).to(second ? at::kByte : at::kChar).contiguous(), scale};
}

Tensor moment_chances(const Tensor& like, int64_t update) {
  constexpr int64_t kMask = 0xffffffff;
  const auto times = [](const Tensor& h, int64_t by) { return h.mul(by).bitwise_and(kMask); };
  const auto mix = [](const Tensor& h, int64_t by) {
    return h.bitwise_xor(h.bitwise_right_shift(at::full({}, by, h.options())));
  };
  const Tensor element =
      at::arange(like.numel(), like.options().dtype(at::kLong)).bitwise_and(kMask);
  Tensor h = times(element, 0x9e3779b9).bitwise_xor(update * 0x85ebca6b & kMask);
  h = times(mix(h, 16), 0x85ebca6b);
  h = times(mix(h, 13), 0xc2b2ae35);
  h = mix(h, 16);
  return h.bitwise_right_shift(at::full({}, 8, h.options()))
      .to(at::kFloat)
      .mul(0x1p-24)
      .view(like.sizes());
}

}  // namespace reference
}  // namespace cosmos::ops
