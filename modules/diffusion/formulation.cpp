#include "modules/diffusion/formulation.h"

#include <cmath>

#include "ops/diffusion_loss/diffusion_loss.h"

namespace cosmos::modules {
namespace {

Tensor edm_norm(const Tensor& sigma, double sigma_data) {
  return (sigma * sigma + sigma_data * sigma_data).sqrt();
}

// What noisy latents are divided by before the network sees them. Rectified flow: by nothing.
Tensor input_norm(const DiffusionOptions& options, const Tensor& s) {
  if (options.formulation == Formulation::kEdm) return edm_norm(s, options.sigma_data);
  return 1 + s;  // predict2: 1 - t = 1 / (1 + s)
}

}  // namespace

Formulation formulation_from(const std::string& name, const std::string& where) {
  if (name == "edm") return Formulation::kEdm;
  if (name == "predict2") return Formulation::kPredict2;
  if (name == "rectified_flow") return Formulation::kRectifiedFlow;
  fail(where, ": expected edm, predict2 or rectified_flow, got \"", name, "\"");
}

const char* formulation_name(Formulation formulation) {
  switch (formulation) {
    case Formulation::kEdm:
      return "edm";
    case Formulation::kPredict2:
      return "predict2";
    case Formulation::kRectifiedFlow:
      break;
  }
  return "rectified_flow";
}

DiffusionOptions published_options(Formulation formulation) {
  switch (formulation) {
    case Formulation::kEdm:
      return {.formulation = formulation, .sigma_data = 0.5, .high_sigma_ratio = 0};
    case Formulation::kPredict2:
      return {.formulation = formulation, .loss_scale = 10.0};
    case Formulation::kRectifiedFlow:
      break;
  }
  return {.formulation = formulation, .video_scale = false, .high_sigma_ratio = 0};
}

double draw_sigma(const DiffusionOptions& options, int64_t latent_frames, Philox& random) {
  // Both numbers are drawn always, so that a change of ratio does not move the other draws.
  const double normal = options.noise_mean + options.noise_std * random.normal();
  const double uniform = random.uniform();
  if (options.formulation == Formulation::kRectifiedFlow) {
    const double u = 1 / (1 + std::exp(-normal));
    return options.shift * u / (1 + (options.shift - 1) * u);
  }
  const bool video = latent_frames > 1;
  if (video && uniform < options.high_sigma_ratio) {
    const double low = std::log(options.high_sigma_min), high = std::log(options.high_sigma_max);
    return std::exp(low + (high - low) * uniform / options.high_sigma_ratio);
  }
  const double scale =
      video && options.video_scale ? std::sqrt(static_cast<double>(latent_frames)) : 1;
  return std::exp(normal) * scale;
}

Tensor broadcast_sigma(const Tensor& sigma, const Tensor& like) {
  const Tensor s = sigma.to(like.options());
  if (s.dim() == 0) return s;
  if (s.dim() == 1) return s.view({-1, 1, 1, 1, 1});
  require(s.dim() == 2, "sigma: expected [B] or [B, T], got ", s.sizes());
  return s.view({s.size(0), 1, s.size(1), 1, 1});
}

Mixture noisy_mixture(const DiffusionOptions& options, const Tensor& sigma) {
  const Tensor s = sigma.to(torch::kFloat64);
  const bool flow = options.formulation == Formulation::kRectifiedFlow;
  return {.x0 = flow ? 1 - s : torch::ones_like(s), .noise = s};
}

Mixture input_mixture(const DiffusionOptions& options, const Tensor& sigma) {
  const Mixture noisy = noisy_mixture(options, sigma);
  if (options.formulation == Formulation::kRectifiedFlow) return noisy;
  const Tensor norm = input_norm(options, noisy.noise);
  return {.x0 = noisy.x0 / norm, .noise = noisy.noise / norm};
}

Mixture target_mixture(const DiffusionOptions& options, const Tensor& sigma) {
  const Tensor s = sigma.to(torch::kFloat64);
  if (options.formulation != Formulation::kEdm)
    return {.x0 = -torch::ones_like(s), .noise = torch::ones_like(s)};
  // (x0 - c_skip (x0 + s n)) / c_out, with the terms in x0 collected so that s -> 0 is exact.
  const double d = options.sigma_data;
  const Tensor norm = edm_norm(s, d);
  return {.x0 = s / (d * norm), .noise = -d / norm};
}

Tensor mix(const Mixture& mixture, const Tensor& x0, const Tensor& noise) {
  return ops::diffusion_input(x0, noise, mixture.x0.to(x0.device()), mixture.noise.to(x0.device()));
}

Tensor add_noise(const DiffusionOptions& options, const Tensor& x0, const Tensor& noise,
                 const Tensor& sigma) {
  return mix(noisy_mixture(options, sigma), x0, noise);
}

Tensor network_input(const DiffusionOptions& options, const Tensor& x, const Tensor& sigma) {
  if (options.formulation == Formulation::kRectifiedFlow) return x;
  return x / input_norm(options, broadcast_sigma(sigma, x));
}

Tensor network_time(const DiffusionOptions& options, const Tensor& sigma) {
  switch (options.formulation) {
    case Formulation::kEdm:
      return sigma.log() * 0.25;
    case Formulation::kPredict2:
      return sigma / (sigma + 1);
    case Formulation::kRectifiedFlow:
      break;
  }
  return sigma;
}

Tensor predict_x0(const DiffusionOptions& options, const Tensor& x, const Tensor& output,
                  const Tensor& sigma) {
  const Tensor s = broadcast_sigma(sigma, x);
  const double d = options.sigma_data;
  switch (options.formulation) {
    case Formulation::kEdm:
      return (d * d / (s * s + d * d)) * x + (s * d / edm_norm(s, d)) * output;
    case Formulation::kPredict2:
      return (x - s * output) / (1 + s);
    case Formulation::kRectifiedFlow:
      break;
  }
  return x - s * output;
}

Tensor clip_losses(const DiffusionOptions& options, const Tensor& output, const Tensor& x0,
                   const Tensor& noise, const Tensor& sigma, const Tensor& frame_weights) {
  const auto on_device = [&](const Tensor& x) { return x.to(output.device()); };
  const Mixture target = target_mixture(options, sigma);
  return ops::diffusion_loss(output, on_device(x0), on_device(noise), on_device(target.x0),
                             on_device(target.noise),
                             on_device(frame_weights * output_weight(options)));
}

Tensor x0_weight(const DiffusionOptions& options, const Tensor& sigma) {
  const Tensor s2 = sigma * sigma;
  const double d2 = options.sigma_data * options.sigma_data;
  switch (options.formulation) {
    case Formulation::kEdm:
      return options.loss_scale * (s2 + d2) / (s2 * d2);
    case Formulation::kPredict2:
      return options.loss_scale * (1 + sigma) * (1 + sigma) / s2;
    case Formulation::kRectifiedFlow:
      break;
  }
  return options.loss_scale / s2;
}

double output_weight(const DiffusionOptions& options) {
  return options.loss_scale;
}

Tensor guide(const Tensor& conditional, const Tensor& unconditional, double guidance) {
  return conditional + guidance * (conditional - unconditional);
}

}  // namespace cosmos::modules
