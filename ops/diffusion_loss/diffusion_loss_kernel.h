#pragma once

// What the kernels of diffusion_loss.h are given. A plane is one channel of one latent frame of one
// clip, contiguous; a unit of work is a segment of a plane, so one unit has one set of numbers.

#include <cstdint>

#include "ops/core/dtype.h"

namespace cosmos::ops {

/// Elements of a unit at most; fixes how losses are summed.
inline constexpr int64_t kDiffusionSegment = 4096;

struct LatentShape {
  DType dtype = DType::kFloat32;  ///< of the network's side: its input, its output
  bool wide_latents = false;      ///< x0 and noise are in the accumulate type, not in dtype
  int64_t batch = 0, channels = 0, frames = 0, plane = 0;
  int64_t segments = 0;  ///< of a plane
  int64_t units() const { return batch * channels * frames * segments; }
};

/// x0_scale x0 + noise_scale noise. Latents are contiguous, scales [batch, frames] in the
/// accumulate type.
struct LatentMix {
  const void* x0;
  const void* noise;
  const void* x0_scale;
  const void* noise_scale;
};

struct DiffusionInput {
  LatentShape shape;
  LatentMix mix;
  void* out;  ///< dtype
};

struct DiffusionLoss {
  LatentShape shape;
  LatentMix target;
  const void* output;
  const void* weight;  ///< [batch, frames], accumulate type, over channels * plane
  void* partial;       ///< [units], accumulate type: each unit's share of its clip's loss
};

struct DiffusionLossBackward {
  LatentShape shape;
  LatentMix target;
  const void* output;
  const void* weight;  ///< as above
  const void* grad;    ///< [batch], accumulate type
  void* grad_output;   ///< dtype
};

#if defined(COSMOS_CUDA) || defined(COSMOS_CUDA_EMULATION)
void diffusion_input_cuda(const DiffusionInput& params, void* stream);
void diffusion_loss_forward_cuda(const DiffusionLoss& params, void* stream);
void diffusion_loss_backward_cuda(const DiffusionLossBackward& params, void* stream);
#endif

}  // namespace cosmos::ops
