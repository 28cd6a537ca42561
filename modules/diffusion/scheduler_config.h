#pragma once

// Mirrors of diffusers' scheduler_config.json: same keys, same defaults. A pipeline folder keeps
// the JSON it was read with; these structs are the view that a sampler takes of it. `_class_name`
// picks the struct. Settings that no Cosmos release uses are refused when a sampler is made, never
// ignored.

#include <optional>
#include <string>
#include <vector>

#include "modules/core/fields.h"

namespace cosmos::modules {

/// UniPCMultistepScheduler (Zhao et al. 2023): Predict2.5 and Transfer2.5.
struct UniPcConfig {
  static constexpr const char* kClassName = "UniPCMultistepScheduler";
  int64_t num_train_timesteps = 1000;
  int64_t solver_order = 2;
  std::string prediction_type = "epsilon";
  bool thresholding = false;
  bool predict_x0 = true;
  std::string solver_type = "bh2";
  bool lower_order_final = true;
  std::vector<int64_t> disable_corrector{};
  bool use_karras_sigmas = false;
  bool use_exponential_sigmas = false;
  bool use_beta_sigmas = false;
  bool use_flow_sigmas = false;
  double flow_shift = 1.0;
  std::string final_sigmas_type = "zero";
  bool use_dynamic_shifting = false;
  std::optional<double> sigma_min{}, sigma_max{}, shift_terminal{};

  template <typename Visitor>
  void fields(Visitor& v) {
    v("num_train_timesteps", num_train_timesteps);
    v("solver_order", solver_order);
    v("prediction_type", prediction_type);
    v("thresholding", thresholding);
    v("predict_x0", predict_x0);
    v("solver_type", solver_type);
    v("lower_order_final", lower_order_final);
    v("disable_corrector", disable_corrector);
    v("use_karras_sigmas", use_karras_sigmas);
    v("use_exponential_sigmas", use_exponential_sigmas);
    v("use_beta_sigmas", use_beta_sigmas);
    v("use_flow_sigmas", use_flow_sigmas);
    v("flow_shift", flow_shift);
    v("final_sigmas_type", final_sigmas_type);
    v("use_dynamic_shifting", use_dynamic_shifting);
    v("sigma_min", sigma_min);
    v("sigma_max", sigma_max);
    v("shift_terminal", shift_terminal);
  }
};

/// EDMEulerScheduler (Karras et al. 2022): Predict1.
struct EdmEulerConfig {
  static constexpr const char* kClassName = "EDMEulerScheduler";
  double sigma_min = 0.002;
  double sigma_max = 80.0;
  double sigma_data = 0.5;
  std::string sigma_schedule = "karras";
  int64_t num_train_timesteps = 1000;
  std::string prediction_type = "epsilon";
  double rho = 7.0;
  std::string final_sigmas_type = "zero";

  template <typename Visitor>
  void fields(Visitor& v) {
    v("sigma_min", sigma_min);
    v("sigma_max", sigma_max);
    v("sigma_data", sigma_data);
    v("sigma_schedule", sigma_schedule);
    v("num_train_timesteps", num_train_timesteps);
    v("prediction_type", prediction_type);
    v("rho", rho);
    v("final_sigmas_type", final_sigmas_type);
  }
};

/// FlowMatchEulerDiscreteScheduler: Predict2 in diffusers. The last four keys are not arguments of
/// the class; the Cosmos2 pipelines register them (80, 0.002, 1, "sigma_min").
struct FlowMatchEulerConfig {
  static constexpr const char* kClassName = "FlowMatchEulerDiscreteScheduler";
  int64_t num_train_timesteps = 1000;
  double shift = 1.0;
  bool use_dynamic_shifting = false;
  bool invert_sigmas = false;
  std::optional<double> shift_terminal{};
  bool use_karras_sigmas = false;
  bool use_exponential_sigmas = false;
  bool use_beta_sigmas = false;
  bool stochastic_sampling = false;
  std::optional<double> sigma_max{}, sigma_min{}, sigma_data{};
  std::string final_sigmas_type = "zero";

  template <typename Visitor>
  void fields(Visitor& v) {
    v("num_train_timesteps", num_train_timesteps);
    v("shift", shift);
    v("use_dynamic_shifting", use_dynamic_shifting);
    v("invert_sigmas", invert_sigmas);
    v("shift_terminal", shift_terminal);
    v("use_karras_sigmas", use_karras_sigmas);
    v("use_exponential_sigmas", use_exponential_sigmas);
    v("use_beta_sigmas", use_beta_sigmas);
    v("stochastic_sampling", stochastic_sampling);
    v("sigma_max", sigma_max);
    v("sigma_min", sigma_min);
    v("sigma_data", sigma_data);
    v("final_sigmas_type", final_sigmas_type);
  }
};

/// The multistep sampler of NVIDIA's own Predict2 code (second-order Adams-Bashforth in ln sigma,
/// float64). diffusers has no such class; the name is ours.
struct Res2abConfig {
  static constexpr const char* kClassName = "CosmosRes2ABScheduler";
  double sigma_min = 0.002;
  double sigma_max = 80.0;
  double rho = 7.0;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("sigma_min", sigma_min);
    v("sigma_max", sigma_max);
    v("rho", rho);
  }
};

/// Few-step students of NVIDIA's distillation (DMD2 on Predict2.5 and Transfer2.5). They jump to
/// clean latents and are noised again with the noise that they began with:
///
///   x0 = x - s v(x, s),   x' = (1 - s') x0 + s' n
///
/// at levels s = shift u / (1 + (shift - 1) u), u = 1, 1 - 1/k, ..., 1/k of the k = `trained_steps`
/// steps that they were trained for: 1, 15/16, 5/6, 5/8 (NVIDIA writes them as the angles atan(s /
/// (1 - s)) of its trigonometric flow). Fewer steps take the first of these, more spread u over as
/// many. diffusers has no such class; the name is ours.
struct DistilledConfig {
  static constexpr const char* kClassName = "CosmosDistilledScheduler";
  double shift = 5.0;
  int64_t trained_steps = 4;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("shift", shift);
    v("trained_steps", trained_steps);
  }
};

/// Transfer1's distilled network (EDM): its first call, at `sigma_max`, gives the clip. diffusers
/// has no such class; the name is ours.
struct OneStepConfig {
  static constexpr const char* kClassName = "CosmosOneStepScheduler";
  double sigma_max = 80.0;
  double sigma_data = 0.5;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("sigma_max", sigma_max);
    v("sigma_data", sigma_data);
  }
};

/// Whether it is a OneStepConfig's.
bool is_one_step(const Json& scheduler);

/// Whether it is a scheduler_config.json of a distilled model, which has learned guidance and takes
/// none.
bool is_distilled(const Json& scheduler);

/// A scheduler_config.json with the struct's values.
template <typename Config>
Json scheduler_json(const Config& config) {
  Json json = write_fields(config);
  json["_class_name"] = Config::kClassName;
  json["_diffusers_version"] = "0.42.1";
  return json;
}

/// Predict2.5's published schedulers. The pre-trained (and 14B) checkpoints: linear flow sigmas
/// with shift 5. The post-trained 2B: Karras sigmas 200 to 0.01 mapped to s / (1 + s).
UniPcConfig predict25_scheduler(bool post_trained_2b);

}  // namespace cosmos::modules
