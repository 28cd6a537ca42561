// First-order samplers, and the second-order multistep sampler of NVIDIA's Predict2 code.

#include <cmath>

#include "modules/diffusion/formulation.h"
#include "modules/diffusion/sampler_impl.h"

namespace cosmos::modules {

EdmEulerSampler::EdmEulerSampler(EdmEulerConfig config, std::vector<double> sigmas)
    : Sampler(std::move(sigmas)), config_(std::move(config)) {
  require(config_.prediction_type == "epsilon" || config_.prediction_type == "v_prediction",
          "EDMEulerScheduler: prediction_type: expected epsilon or v_prediction, got \"",
          config_.prediction_type, "\"");
}

std::vector<double> EdmEulerSampler::timesteps() const {
  auto times = levels();
  for (double& time : times) time = 0.25 * std::log(time);
  return times;
}

Tensor EdmEulerSampler::step(const Tensor& output, const Tensor& x) {
  check_not_done();
  const DiffusionOptions edm{.formulation = Formulation::kEdm, .sigma_data = config_.sigma_data};
  const Tensor signed_output = config_.prediction_type == "epsilon" ? output : -output;
  return step_x0(predict_x0(edm, x, signed_output, torch::tensor(sigma(), torch::kFloat64)), x);
}

Tensor EdmEulerSampler::step_x0(const Tensor& x0, const Tensor& x) {
  check_not_done();
  Tensor next = x + ((next_sigma() - sigma()) / sigma()) * (x - x0);
  ++position_;
  return next;
}

FlowMatchEulerSampler::FlowMatchEulerSampler(FlowMatchEulerConfig config,
                                             std::vector<double> sigmas)
    : Sampler(std::move(sigmas)), config_(std::move(config)) {}

std::vector<double> FlowMatchEulerSampler::timesteps() const {
  auto times = levels();
  for (double& time : times) time *= static_cast<double>(config_.num_train_timesteps);
  return times;
}

Tensor FlowMatchEulerSampler::step(const Tensor& output, const Tensor& x) {
  check_not_done();
  Tensor next = x + (next_sigma() - sigma()) * output;
  ++position_;
  return next;
}

Tensor FlowMatchEulerSampler::step_x0(const Tensor& x0, const Tensor& x) {
  check_not_done();
  return step((x - x0) / sigma(), x);
}

// In lambda = -ln sigma, with d = lambda_t - lambda_s and c = (lambda_{s-1} - lambda_s) / d < 0:
//   x_t = e^-d x_s + d ((phi1 - phi2 / c) x0_s + (phi2 / c) x0_{s-1}),
//   phi1 = expm1(-d) / -d, phi2 = (phi1 - 1) / -d.
// The first step has no past: x_t = (t / s) x_s + (1 - t / s) x0_s. To level 0: x0_s.
Tensor Res2abSampler::step_x0(const Tensor& x0_any, const Tensor& x_any) {
  check_not_done();
  const Tensor x0 = x0_any.to(torch::kFloat64), x = x_any.to(torch::kFloat64);
  Tensor next;
  if (next_sigma() == 0) {
    next = x0;
  } else if (!last_x0_.defined()) {
    const double ratio = next_sigma() / sigma();
    next = ratio * x + (1 - ratio) * x0;
  } else {
    const double d = std::log(sigma() / next_sigma());
    const double c = std::log(sigma() / sigmas_[position_ - 1]) / d;
    const double phi1 = std::expm1(-d) / -d, phi2 = (phi1 - 1) / -d;
    next = std::exp(-d) * x + d * ((phi1 - phi2 / c) * x0 + (phi2 / c) * last_x0_);
  }
  last_x0_ = x0;
  ++position_;
  return next;
}

}  // namespace cosmos::modules
