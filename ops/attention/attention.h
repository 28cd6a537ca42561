#pragma once

// Attention over less than everything: packed sequences of different lengths, and neighborhoods in
// space and time. Both run on what LibTorch offers for the device (scaled_dot_product_attention,
// the flash kernels' packed form) and add what it lacks: which tokens meet.
//
//   out[i] = sum_j softmax_j(scale * q[i] . k[j]) v[j],   j over the keys that i sees
//
// q, k, v: float32, bfloat16, float16 or float64, all of one dtype and device. `scale` is
// 1 / sqrt(d) unless given. Keys and values may have fewer heads than queries, a divisor of their
// number (grouped-query attention): query head h uses key head h / (heads / kv_heads).
//
// Errors (cosmos::Error): ranks, sizes, dtypes or devices that do not fit; offsets that do not rise
// from 0 to the number of tokens; windows larger than the axis they move along.

#include <ATen/core/Tensor.h>
#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace cosmos::ops {

/// Attention within each sequence of a packed batch. Sequence s holds the tokens
/// [offsets[s], offsets[s + 1]) of q [N, heads, d] and k, v [M, kv_heads, d] (cu_seqlens of the
/// flash kernels, on the host). Returns [N, heads, d]. `causal`: query i of n sees the keys up to
/// i + m - n of its sequence's m (the last query sees all). Sequences may be empty; a query that
/// sees no key gives 0.
at::Tensor varlen_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::vector<int64_t>& q_offsets,
                            const std::vector<int64_t>& k_offsets, bool causal = false,
                            std::optional<double> scale = std::nullopt);

/// One axis of neighborhood attention, with NATTEN's meaning of the words. With stride 1 and an odd
/// window, query i sees the `window` keys around i, shifted inwards at the borders so that it is
/// always that many. With a stride, all queries of a group of `stride` share the window of the one
/// in the middle. With a dilation, query i sees only tokens j = i (mod dilation), and window and
/// stride count among those. `causal`: no key after the query. Sources: Hassani et al. 2023
/// (arXiv:2204.07143), dilation 2209.15001, strides 2504.16922.
struct NeighborhoodAxis {
  int64_t length = 1;
  int64_t window = 1;
  int64_t stride = 1;
  int64_t dilation = 1;
  bool causal = false;
};

/// Which tokens meet, for one shape of the token grid: tiles of queries, each with the keys that
/// any of them sees, in groups of equal form. Made once for a shape and used by every layer.
class NeighborhoodPlan {
 public:
  /// Axes of time, height and width, the last one fastest.
  NeighborhoodPlan(std::array<NeighborhoodAxis, 3> axes, at::Device device);

  /// Tiles of one form: row t of `queries` [tiles, nq] sees row t of `keys` [tiles, nk] where
  /// `mask` [nq, nk] is true; an undefined mask means everywhere. Values are token numbers.
  struct Group {
    at::Tensor queries, keys, mask;
  };
  const std::vector<Group>& groups() const { return groups_; }
  const std::array<NeighborhoodAxis, 3>& axes() const { return axes_; }
  int64_t tokens() const { return axes_[0].length * axes_[1].length * axes_[2].length; }
  at::Device device() const { return device_; }

 private:
  std::array<NeighborhoodAxis, 3> axes_;
  std::vector<Group> groups_;
  at::Device device_;
};

/// Attention of each token over its neighborhood. q [B, N, heads, d], k and v [B, N, kv_heads, d]
/// with N = plan.tokens(). Returns [B, N, heads, d]. Saves its inputs only: backward runs each
/// tile's attention again.
at::Tensor neighborhood_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const NeighborhoodPlan& plan,
                                  std::optional<double> scale = std::nullopt);

/// The definitions: all pairs, with the others masked.
namespace reference {
at::Tensor varlen_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::vector<int64_t>& q_offsets,
                            const std::vector<int64_t>& k_offsets, bool causal = false,
                            std::optional<double> scale = std::nullopt);
/// [N, N], true where the query (row) sees the key.
at::Tensor neighborhood_mask(const std::array<NeighborhoodAxis, 3>& axes);
at::Tensor neighborhood_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const std::array<NeighborhoodAxis, 3>& axes,
                                  std::optional<double> scale = std::nullopt);
}  // namespace reference

}  // namespace cosmos::ops
