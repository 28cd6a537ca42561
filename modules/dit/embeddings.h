#pragma once

// What surrounds the blocks: patches, time, positions.
//
// B samples, C channels, T x H x W latent positions; t x h x w patches of p_t x p_h x p_w; D width.

#include <optional>

#include "modules/dit/config.h"
#include "modules/dit/layers.h"

namespace cosmos::modules {

/// Number of patches along frames, rows and columns.
struct PatchGrid {
  int64_t frames = 0, rows = 0, columns = 0;
  int64_t tokens_per_frame() const { return rows * columns; }
  int64_t tokens() const { return frames * rows * columns; }
};

/// What stands one after another along dimension 1, view by view, side by side as samples:
/// [B, V n, ...] -> [B V, n, ...], and back.
inline Tensor split_views(const Tensor& x, int64_t views) {
  return views == 1 ? x : x.unflatten(1, {views, -1}).flatten(0, 1);
}
inline Tensor join_views(const Tensor& x, int64_t views) {
  return views == 1 ? x : x.unflatten(0, {-1, views}).flatten(1, 2);
}

/// One token per patch: features in the order (channel, p_t, p_h, p_w), then one product.
/// Parameter: proj.weight [D, C p_t p_h p_w].
class PatchEmbedImpl : public torch::nn::Module {
 public:
  /// Reads `more_channels` beside those of the config.
  explicit PatchEmbedImpl(const DitConfig& config, int64_t more_channels = 0);
  /// x: [B, C, T, H, W] -> [B, t, h w, D]
  Tensor forward(const Tensor& x);

 private:
  std::vector<int64_t> patch_;
  Linear proj_{nullptr};
};
TORCH_MODULE(PatchEmbed);

/// Inverse of patching, for features in the order (p_h, p_w, p_t, channel): deliberately not the
/// order of PatchEmbed; released weights are trained so.
/// x: [B, t, h w, p_h p_w p_t C] -> [B, C, T, H, W]
Tensor unpatchify(const Tensor& x, const PatchGrid& grid, const std::vector<int64_t>& patch);

/// s = [cos(τ f), sin(τ f)], f_i = 10000^(-i / (D/2)), in float32.  τ: [n] -> [n, dim], dim even
Tensor sinusoid(const Tensor& timestep, int64_t dim);

/// Time, twice: temb = L2 silu(L1 s), the modulation that all blocks share, and
/// emb = silu(RMSNorm(s)), from which each block makes its own part.
/// Parameters: t_embedder.linear_1.weight [D, D], t_embedder.linear_2.weight [3 D, D],
/// norm.weight [D].
class TimeEmbedImpl : public torch::nn::Module {
 public:
  explicit TimeEmbedImpl(int64_t dim);
  /// s: [..., D] -> {emb [..., D], temb [..., 3 D]}; `more`, nothing or one tensor for each, is
  /// added to s before the norm, and to temb.
  Tensors forward(const Tensor& s, const Tensors& more = {});

 private:
  Linear linear_1_{nullptr}, linear_2_{nullptr};
  RmsNorm norm_{nullptr};
};
TORCH_MODULE(TimeEmbed);

/// Predict1's second position code, added before every block: e = t[i] + h[j] + w[k], then
/// e / (1e-6 + ‖e‖ / sqrt(D)).  Parameters: pos_emb_{t,h,w} [max_size / patch, D], kept in float32.
class LearnablePosEmbedImpl : public torch::nn::Module {
 public:
  explicit LearnablePosEmbedImpl(const DitConfig& config);
  /// -> [1, t, h w, D]; the same for all samples
  Tensor forward(const PatchGrid& grid, torch::Dtype dtype);

 private:
  Tensor pos_emb_t_, pos_emb_h_, pos_emb_w_;
};
TORCH_MODULE(LearnablePosEmbed);

/// cos and sin of the angles of 3-D RoPE, float32 [t h w, head_dim / 2]: angle pairs for frames,
/// rows, columns side by side. Number i of a head is rotated with number i + head_dim / 2.
///
/// Of a head's d numbers rows and columns get 2 (d / 6) each, frames the rest. On an axis of d'
/// numbers frequency j is θ^(-2j / d'), θ = 10000 · rope_scale^(d' / (d' - 2)) (NTK-aware). With
/// `fps` frame i stands at i · 24 / fps, without at i.
struct RopeTable {
  Tensor cos, sin;
};
RopeTable rope_table(const DitConfig& config, const PatchGrid& grid, std::optional<double> fps,
                     torch::Device device);

}  // namespace cosmos::modules
