#pragma once

// What each Cosmos generation trains: how noise is mixed in, what the network sees, what its output
// means and how the error is weighted. Free functions over one small value type; nothing here knows
// a model.
//
// Legend: x0 clean latents, n standard normal noise, s noise level (sigma), x noisy latents, F the
// network's raw output. x0, n, x, F: [B, C, T, H, W]; s: [B] (one level a clip) or [B, T] (one a
// latent frame), float32 or float64.
//
//   formulation     x            network input      network time     x0 from F           F's target
//   edm             x0 + s n     x / sqrt(s2 + d2)  ln(s) / 4        c_skip x + c_out F  (x0 -
//   c_skip x) / c_out predict2        x0 + s n     (1 - t) x          t = s / (s + 1)  (1 - t) x -
//   t F     n - x0 rectified_flow  (1-s)x0+s n  x                  s                x - s F n - x0
//
// with d = sigma_data, c_skip = d2 / (s2 + d2), c_out = s d / sqrt(s2 + d2).
// Sources: Karras et al. 2022 (EDM; Cosmos Predict1), Cosmos Predict2 (a rectified flow written in
// EDM's variables), Cosmos Predict2.5 and Transfer2.5 (rectified flow with a shifted logit-normal).

#include <string>

#include "modules/core/random.h"
#include "modules/core/tensor.h"

namespace cosmos::modules {

enum class Formulation { kEdm, kPredict2, kRectifiedFlow };

/// "edm", "predict2" or "rectified_flow". `where` names the setting in the error.
Formulation formulation_from(const std::string& name, const std::string& where);
const char* formulation_name(Formulation formulation);

struct DiffusionOptions {
  Formulation formulation = Formulation::kRectifiedFlow;

  /// Standard deviation of the data the network is trained on; latents are multiplied by it. EDM
  /// 0.5.
  double sigma_data = 1.0;

  // Noise levels of training. edm and predict2: ln s ~ N(mean, std), then s *= video_scale ?
  // sqrt(T) : 1 for clips of T > 1 latent frames. rectified_flow: u = sigmoid(N(mean, std)), s =
  // shift u / (1 + (shift - 1) u).
  double noise_mean = 0.0;
  double noise_std = 1.0;
  bool video_scale = true;
  double shift = 5.0;
  /// predict2: this share of the clips draws ln s uniformly between the two bounds instead.
  double high_sigma_ratio = 0.05;
  double high_sigma_min = 200.0;
  double high_sigma_max = 1e5;

  /// Factor on the whole loss. Predict2 was trained with 10.
  double loss_scale = 1.0;
};

/// The published settings: edm (sigma_data 0.5), predict2 (loss x 10), rectified_flow (shift 5).
DiffusionOptions published_options(Formulation formulation);

/// Draws a training noise level for a clip of `latent_frames`.
double draw_sigma(const DiffusionOptions& options, int64_t latent_frames, Philox& random);

/// s as [B, 1, 1, 1, 1] or [B, 1, T, 1, 1], in the dtype and on the device of `like`.
Tensor broadcast_sigma(const Tensor& sigma, const Tensor& like);

/// What training mixes from clean latents and noise: x0 times the one number, noise times the
/// other, for each s; float64 in s's shape.
struct Mixture {
  Tensor x0, noise;
};

Mixture noisy_mixture(const DiffusionOptions& options, const Tensor& sigma);   ///< x
Mixture input_mixture(const DiffusionOptions& options, const Tensor& sigma);   ///< network input
Mixture target_mixture(const DiffusionOptions& options, const Tensor& sigma);  ///< F's target

/// The mixture itself, in one pass, with x0's dtype and device.
Tensor mix(const Mixture& mixture, const Tensor& x0, const Tensor& noise);

/// x: the clean latents with noise of level s.
Tensor add_noise(const DiffusionOptions& options, const Tensor& x0, const Tensor& noise,
                 const Tensor& sigma);

/// What the network is fed as hidden_states.
Tensor network_input(const DiffusionOptions& options, const Tensor& x, const Tensor& sigma);

/// What the network is fed as timestep; same shape as sigma.
Tensor network_time(const DiffusionOptions& options, const Tensor& sigma);

/// The clean latents that output F stands for.
Tensor predict_x0(const DiffusionOptions& options, const Tensor& x, const Tensor& output,
                  const Tensor& sigma);

/// Loss of each clip: the squared error of F, averaged over a frame and summed with the frames'
/// weights [B, T], times output_weight(). [B]; differentiable in `output`.
Tensor clip_losses(const DiffusionOptions& options, const Tensor& output, const Tensor& x0,
                   const Tensor& noise, const Tensor& sigma, const Tensor& frame_weights);

/// Weight of the squared error in x0, as published: edm (s2 + d2) / (s d)2, predict2 (1 + s)2 / s2,
/// rectified_flow 1 / s2, times loss_scale. In terms of F and its target each of the three is the
/// constant output_weight(), which is what training uses: it does not overflow at tiny s.
Tensor x0_weight(const DiffusionOptions& options, const Tensor& sigma);
double output_weight(const DiffusionOptions& options);

/// Cosmos's classifier-free guidance: cond + g (cond - uncond), so g = 0 is no guidance and the
/// usual "scale" is g + 1. Every Cosmos video pipeline uses it.
Tensor guide(const Tensor& conditional, const Tensor& unconditional, double guidance);

}  // namespace cosmos::modules
