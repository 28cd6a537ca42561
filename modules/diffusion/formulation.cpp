#include "modules/diffusion/formulation.h"

#include <cmath>

namespace cosmos::modules {
namespace {

Tensor edm_norm(const Tensor& sigma, double sigma_data) {
  return (sigma * sigma + sigma_data * sigma_data).sqrt();
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

Tensor add_noise(const DiffusionOptions& options, const Tensor& x0, const Tensor& noise,
                 const Tensor& sigma) {
  const Tensor s = broadcast_sigma(sigma, x0);
  if (options.formulation == Formulation::kRectifiedFlow) return (1 - s) * x0 + s * noise;
  return x0 + s * noise;
}

Tensor network_input(const DiffusionOptions& options, const Tensor& x, const Tensor& sigma) {
  const Tensor s = broadcast_sigma(sigma, x);
  switch (options.formulation) {
    case Formulation::kEdm:
      return x / edm_norm(s, options.sigma_data);
    case Formulation::kPredict2:
      return x / (1 + s);  // 1 - t = 1 / (1 + s)
    case Formulation::kRectifiedFlow:
      break;
  }
  return x;
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

Tensor network_target(const DiffusionOptions& options, const Tensor& x0, const Tensor& noise,
                      const Tensor& sigma) {
  if (options.formulation != Formulation::kEdm) return noise - x0;
  // (x0 - c_skip (x0 + s n)) / c_out, with the terms in x0 collected so that s -> 0 is exact.
  const Tensor s = broadcast_sigma(sigma, x0);
  const double d = options.sigma_data;
  return (s * x0 - d * d * noise) / (d * edm_norm(s, d));
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
