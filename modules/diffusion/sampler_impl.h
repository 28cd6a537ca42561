#pragma once

// The sampler classes behind make_sampler(). Private to this folder.

#include <deque>
#include <optional>

#include "modules/diffusion/sampler.h"
#include "modules/diffusion/scheduler_config.h"

namespace cosmos::modules {

/// (max^(1/rho) + i / (n - 1) (min^(1/rho) - max^(1/rho)))^rho, i = 0 .. n - 1.
std::vector<double> karras_sigmas(double sigma_max, double sigma_min, double rho, int64_t n);
/// n values, equidistant in the logarithm.
std::vector<double> exponential_sigmas(double first, double last, int64_t n);
/// n values from first to last, both included.
std::vector<double> linspace(double first, double last, int64_t n);
/// Schedules are computed in float64 and kept in float32, as in diffusers.
std::vector<double> rounded(std::vector<double> sigmas);
/// shift s / (1 + (shift - 1) s)
double shift_sigma(double sigma, double shift);

/// UniPC, B(h) variants, order 1 or 2, predicting x0 on flow sigmas.
class UniPcSampler : public Sampler {
 public:
  /// sigmas: not rounded yet.
  UniPcSampler(UniPcConfig config, const std::vector<double>& sigmas);
  Tensor step(const Tensor& output, const Tensor& x) override;
  Tensor step_x0(const Tensor& x0, const Tensor& x) override;
  double initial_scale() const override { return 1; }
  std::vector<double> timesteps() const override { return timesteps_; }

 private:
  Tensor predict(const Tensor& x, int order) const;
  Tensor correct(const Tensor& x0, const Tensor& last_x, int order) const;
  double log_snr(int64_t i) const;  // lambda = ln alpha - ln sigma
  double b_of_h(double h) const;
  bool corrects(int64_t step) const;

  UniPcConfig config_;
  std::vector<double> timesteps_;
  std::deque<Tensor> x0s_;  // newest first
  Tensor last_x_;
  int order_ = 1;
};

class EdmEulerSampler : public Sampler {
 public:
  EdmEulerSampler(EdmEulerConfig config, std::vector<double> sigmas);
  Tensor step(const Tensor& output, const Tensor& x) override;
  Tensor step_x0(const Tensor& x0, const Tensor& x) override;
  double initial_scale() const override { return config_.sigma_max; }
  std::vector<double> timesteps() const override;

 private:
  EdmEulerConfig config_;
};

class FlowMatchEulerSampler : public Sampler {
 public:
  FlowMatchEulerSampler(FlowMatchEulerConfig config, std::vector<double> sigmas);
  Tensor step(const Tensor& output, const Tensor& x) override;
  Tensor step_x0(const Tensor& x0, const Tensor& x) override;
  double initial_scale() const override { return config_.sigma_max.value_or(1.0); }
  std::vector<double> timesteps() const override;

 private:
  FlowMatchEulerConfig config_;
};

class DistilledSampler : public Sampler {
 public:
  explicit DistilledSampler(std::vector<double> sigmas) : Sampler(std::move(sigmas)) {}
  Tensor step(const Tensor& output, const Tensor& x) override;
  Tensor step_x0(const Tensor& x0, const Tensor& x) override;
  double initial_scale() const override { return sigmas_.front(); }  // 1 of a flow
  std::vector<double> timesteps() const override;

 private:
  Tensor noise_;  ///< what the first step is given
};

class Res2abSampler : public Sampler {
 public:
  explicit Res2abSampler(std::vector<double> sigmas) : Sampler(std::move(sigmas)) {}
  Tensor step(const Tensor& output, const Tensor& x) override { return step_x0(output, x); }
  Tensor step_x0(const Tensor& x0, const Tensor& x) override;
  double initial_scale() const override { return sigmas_.front(); }
  std::vector<double> timesteps() const override { return levels(); }

 private:
  Tensor last_x0_;
};

}  // namespace cosmos::modules
