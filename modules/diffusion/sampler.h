#pragma once

// Samplers: from noise to clean latents in a fixed number of steps, one network evaluation a step.
//
//   auto sampler = make_sampler(scheduler_config, 35);
//   Tensor x = noise * sampler->initial_scale();
//   for (double sigma : sampler->levels()) x = sampler->step(network(x, sigma), x);
//
//   scheduler                        step() takes                      step_x0() takes
//   UniPCMultistepScheduler          velocity n - x0 (flow sigmas)     clean latents
//   EDMEulerScheduler                raw network output F              clean latents
//   FlowMatchEulerDiscreteScheduler  dx / dsigma                       clean latents
//   CosmosRes2ABScheduler            clean latents                     clean latents
//   CosmosDistilledScheduler         velocity n - x0                   clean latents
//   CosmosOneStepScheduler           not used                          clean latents
//
// x is float32 (float64 inside CosmosRes2ABScheduler). A sampler remembers its past outputs: one
// object per clip, and steps in order. Agreement with diffusers 0.42.1:
// test/reference/sampler_proof.py.

#include <memory>
#include <vector>

#include "modules/core/model.h"
#include "modules/core/tensor.h"

namespace cosmos::modules {

class Sampler {
 public:
  virtual ~Sampler() = default;

  /// Advances x from the current noise level to the next. Throws Error after the last step.
  virtual Tensor step(const Tensor& output, const Tensor& x) = 0;
  /// The same from predicted clean latents.
  virtual Tensor step_x0(const Tensor& x0, const Tensor& x) = 0;
  /// Standard deviation of the noise that the first step expects.
  virtual double initial_scale() const = 0;
  /// What diffusers calls timesteps: one a step.
  virtual std::vector<double> timesteps() const = 0;

  /// Noise levels at which the network is evaluated, one a step, decreasing.
  std::vector<double> levels() const { return {sigmas_.begin(), sigmas_.end() - 1}; }
  /// The same with the level after the last step appended (`sigmas` of diffusers).
  const std::vector<double>& sigmas() const { return sigmas_; }
  int64_t steps() const { return static_cast<int64_t>(sigmas_.size()) - 1; }
  /// Steps taken so far.
  int64_t position() const { return position_; }

 protected:
  explicit Sampler(std::vector<double> sigmas) : sigmas_(std::move(sigmas)) {}
  double sigma() const { return sigmas_[position_]; }
  double next_sigma() const { return sigmas_[position_ + 1]; }
  void check_not_done() const {
    require(position_ < steps(), "sampler: all ", steps(),
            " steps have been taken; make a new one");
  }

  std::vector<double> sigmas_;
  int64_t position_ = 0;
};

/// Builds the sampler of a scheduler_config.json for `steps` steps. Throws Error on an unknown
/// `_class_name` or on a setting that is not supported; `where` names the file.
std::unique_ptr<Sampler> make_sampler(const Json& config, int64_t steps,
                                      const std::string& where = "scheduler_config.json");

/// As make_sampler, with NVIDIA's own levels where they differ: flow sigmas from 0.999 in steps of
/// 0.999 / steps before the shift, and one Karras level more than steps. NVIDIA's network is then
/// fed the integer timesteps() / 1000, diffusers' the level itself.
std::unique_ptr<Sampler> make_nvidia_sampler(const Json& config, int64_t steps,
                                             const std::string& where = "scheduler_config.json");

}  // namespace cosmos::modules
