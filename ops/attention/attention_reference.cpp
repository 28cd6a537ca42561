#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <algorithm>
#include <cmath>

#include "ops/attention/attention.h"

namespace cosmos::ops::reference {
namespace {

/// q [..., heads, n, d], k and v [..., kv_heads, m, d], mask [n, m]. A row without a key gives 0.
at::Tensor masked_attention(const at::Tensor& q, at::Tensor k, at::Tensor v, const at::Tensor& mask,
                            std::optional<double> scale) {
  const int64_t group = k.size(-3) > 0 ? q.size(-3) / k.size(-3) : 1;
  k = k.repeat_interleave(group, -3);
  v = v.repeat_interleave(group, -3);
  const double factor = scale.value_or(1 / std::sqrt(static_cast<double>(q.size(-1))));
  const at::Tensor scores = q.matmul(k.transpose(-1, -2)) * factor;
  const at::Tensor seen = mask.any(-1, /*keepdim=*/true);
  // A finite lowest score: a row of -inf would be NaN, and its gradient with it.
  const at::Tensor weights = at::softmax(scores.masked_fill(mask.logical_not(), -1e30), -1);
  return at::where(seen, weights, at::zeros({}, weights.options())).matmul(v);
}

/// First and one-past-last key, among the tokens of one residue, that query i of n sees.
std::pair<int64_t, int64_t> window_of(const NeighborhoodAxis& a, int64_t i, int64_t n) {
  const int64_t group = i / a.stride * a.stride;
  if (a.causal) {
    const int64_t leader = std::min(group + a.stride - 1, n - 1);
    return {std::max<int64_t>(leader - a.window + 1, 0), i + 1};
  }
  const int64_t leader = std::min(group + a.stride / 2, n - 1);
  const int64_t begin = std::clamp<int64_t>(leader - a.window / 2, 0, n - a.window);
  return {begin, begin + a.window};
}

at::Tensor axis_mask(const NeighborhoodAxis& a) {
  at::Tensor mask = at::zeros({a.length, a.length}, at::kBool);
  auto seen = mask.accessor<bool, 2>();
  for (int64_t i = 0; i < a.length; ++i) {
    const int64_t residue = i % a.dilation;
    const int64_t n = (a.length - residue + a.dilation - 1) / a.dilation;
    const auto [begin, end] = window_of(a, i / a.dilation, n);
    for (int64_t j = begin; j < end; ++j) seen[i][residue + j * a.dilation] = true;
  }
  return mask;
}

}  // namespace

at::Tensor varlen_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::vector<int64_t>& q_offsets,
                            const std::vector<int64_t>& k_offsets, bool causal,
                            std::optional<double> scale) {
  at::Tensor mask = at::zeros({q.size(0), k.size(0)}, at::kBool);
  for (std::size_t s = 0; s + 1 < q_offsets.size(); ++s) {
    const int64_t n = q_offsets[s + 1] - q_offsets[s], m = k_offsets[s + 1] - k_offsets[s];
    at::Tensor block = at::full({n, m}, true, at::kBool);
    if (causal) block = block.tril(m - n);
    mask.narrow(0, q_offsets[s], n).narrow(1, k_offsets[s], m).copy_(block);
  }
  return masked_attention(q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1),
                          mask.to(q.device()), scale)
      .transpose(0, 1);
}

at::Tensor neighborhood_mask(const std::array<NeighborhoodAxis, 3>& axes) {
  const int64_t t = axes[0].length, h = axes[1].length, w = axes[2].length;
  const at::Tensor mask = axis_mask(axes[0]).view({t, 1, 1, t, 1, 1}) &
                          axis_mask(axes[1]).view({1, h, 1, 1, h, 1}) &
                          axis_mask(axes[2]).view({1, 1, w, 1, 1, w});
  return mask.reshape({t * h * w, t * h * w});
}

at::Tensor neighborhood_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const std::array<NeighborhoodAxis, 3>& axes,
                                  std::optional<double> scale) {
  return masked_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
                          neighborhood_mask(axes).to(q.device()), scale)
      .transpose(1, 2);
}

}  // namespace cosmos::ops::reference
