// UniPC (Zhao et al. 2023, "UniPC: A Unified Predictor-Corrector Framework") on flow sigmas.
//
// With alpha = 1 - s and lambda = ln alpha - ln s, one step goes from level s to t, h = lambda_t -
// lambda_s, and m0, m1 are the newest two x0 predictions, r1 = (lambda_{s-1} - lambda_s) / h:
//
//   predictor  x_t = (s_t / s_s) x_s - alpha_t e m0 - alpha_t B (m1 - m0) / (2 r1),  e = expm1(-h)
//   corrector  x_t again, from the x_s that was stepped from, once m_t is known:
//              ... - alpha_t B (c1 (m1 - m0) / r1 + c2 (m_t - m0))
//
// B = expm1(-h) (bh2) or -h (bh1); order 1 leaves out the m1 terms and has c2 = 1/2.

#include <algorithm>
#include <cmath>
#include <limits>

#include "modules/diffusion/sampler_impl.h"

namespace cosmos::modules {

UniPcSampler::UniPcSampler(UniPcConfig config, const std::vector<double>& sigmas)
    : Sampler(rounded(sigmas)), config_(std::move(config)) {
  for (int64_t i = 0; i < steps(); ++i)
    timesteps_.push_back(std::trunc(sigmas[i] * static_cast<double>(config_.num_train_timesteps)));
}

double UniPcSampler::log_snr(int64_t i) const {
  const double sigma = sigmas_[i];
  if (sigma == 0) return std::numeric_limits<double>::infinity();
  return std::log(1 - sigma) - std::log(sigma);
}

double UniPcSampler::b_of_h(double h) const {
  return config_.solver_type == "bh1" ? -h : std::expm1(-h);
}

Tensor UniPcSampler::predict(const Tensor& x, int order) const {
  const double alpha = 1 - next_sigma();
  const double h = log_snr(position_ + 1) - log_snr(position_);
  const Tensor& m0 = x0s_[0];
  Tensor next = (next_sigma() / sigma()) * x - alpha * std::expm1(-h) * m0;
  if (order == 2) {
    const double r1 = (log_snr(position_ - 1) - log_snr(position_)) / h;
    next = next - (alpha * b_of_h(h) * 0.5 / r1) * (x0s_[1] - m0);
  }
  return next;
}

Tensor UniPcSampler::correct(const Tensor& x0, const Tensor& last_x, int order) const {
  const int64_t from = position_ - 1;
  const double alpha = 1 - sigma();
  const double h = log_snr(position_) - log_snr(from);
  const double b = b_of_h(h);
  const Tensor& m0 = x0s_[0];
  Tensor x = (sigma() / sigmas_[from]) * last_x - alpha * std::expm1(-h) * m0;
  if (order == 1) return x - (alpha * b * 0.5) * (x0 - m0);
  // The weights solve [[1, 1], [r1, 1]] (c1, c2) = (b1, b2).
  const double phi1 = std::expm1(-h) / -h - 1;
  const double phi2 = phi1 / -h - 0.5;
  const double b1 = phi1 / b, b2 = 2 * phi2 / b;
  const double r1 = (log_snr(from - 1) - log_snr(from)) / h;
  const double c1 = (b1 - b2) / (1 - r1), c2 = b1 - c1;
  return x - (alpha * b) * ((c1 / r1) * (x0s_[1] - m0) + c2 * (x0 - m0));
}

bool UniPcSampler::corrects(int64_t step) const {
  const auto& off = config_.disable_corrector;
  return step > 0 && std::find(off.begin(), off.end(), step - 1) == off.end();
}

Tensor UniPcSampler::step(const Tensor& output, const Tensor& x) {
  check_not_done();
  return step_x0(x - sigma() * output, x);
}

Tensor UniPcSampler::step_x0(const Tensor& x0, const Tensor& x) {
  check_not_done();
  const Tensor corrected = corrects(position_) ? correct(x0, last_x_, order_) : x;
  const auto taken = static_cast<int64_t>(x0s_.size());
  x0s_.push_front(x0);
  if (static_cast<int64_t>(x0s_.size()) > config_.solver_order) x0s_.pop_back();

  int64_t order = std::min(config_.solver_order, taken + 1);
  if (config_.lower_order_final) order = std::min(order, steps() - position_);
  if (next_sigma() == 0) order = 1;  // h is infinite: the step lands on m0
  order_ = static_cast<int>(order);
  last_x_ = corrected;
  Tensor next = predict(corrected, order_);
  ++position_;
  return next;
}

}  // namespace cosmos::modules
