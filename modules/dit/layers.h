#pragma once

// The small layers of a DiT block: the modulation of AdaLN, the MLP.
//
// B samples, T frames (after patching), N = H * W tokens of a frame, D width.

#include "modules/core/layers.h"
#include "modules/core/linear.h"

namespace cosmos::modules {

inline constexpr double kLayerNormEps = 1e-6;

/// Shift, scale and gate of one sub-layer: slices of one product, [B | 1, T | 1, 1, D] each.
struct Modulated {
  Tensor shift, scale, gate;
};

/// AdaLN-LoRA: m = L2 L1 silu(e) + temb, split into (shift, scale, gate), where L1: D -> rank,
/// L2: rank -> parts * D, temb is shared by all blocks and cut to parts * D.
///
/// One row per sample, or per frame with per-frame timesteps; never one per token: all H * W tokens
/// of a frame share the timestep, so the products run on B * T rows and the result is broadcast.
/// Parameters: linear_1.weight [rank, D], linear_2.weight [parts * D, rank].
class ModulationImpl : public torch::nn::Module {
 public:
  /// parts: 3 in a block, 2 (no gate) before the output projection.
  ModulationImpl(int64_t dim, int64_t rank, int64_t parts);
  /// silu_emb: silu(e) [B | 1, T | 1, 1, D], temb: [B | 1, T | 1, 1, 3 D]
  Modulated forward(const Tensor& silu_emb, const Tensor& temb);

 private:
  int64_t parts_;
  Linear linear_1_{nullptr}, linear_2_{nullptr};
};
TORCH_MODULE(Modulation);

/// MLP: W2 gelu(W1 x), exact GELU, no bias.  Parameters: net.0.proj.weight, net.2.weight.
class FeedForwardImpl : public torch::nn::Module {
 public:
  FeedForwardImpl(int64_t dim, int64_t inner_dim);
  Tensor forward(const Tensor& x);

 private:
  Linear up_{nullptr}, down_{nullptr};
};
TORCH_MODULE(FeedForward);

/// gelu(W x + b).  Parameters: 0.weight, 0.bias (a Sequential of Linear and GELU in diffusers).
class ProjectionImpl : public torch::nn::Module {
 public:
  ProjectionImpl(int64_t in_dim, int64_t out_dim);
  Tensor forward(const Tensor& x);

 private:
  Linear linear_{nullptr};
};
TORCH_MODULE(Projection);

}  // namespace cosmos::modules
