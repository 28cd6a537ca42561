#include <algorithm>
#include <cmath>

#include "modules/diffusion/sampler_impl.h"

namespace cosmos::modules {
namespace {

void refuse(bool set, const std::string& where, const char* key) {
  require(!set, where, ": ", key, " is not supported; no Cosmos release uses it");
}

// "zero" or "sigma_min": the level after the last step.
double final_sigma(const std::string& type, double last, const std::string& where) {
  if (type == "zero") return 0;
  require(type == "sigma_min", where, ": final_sigmas_type: expected zero or sigma_min, got \"",
          type, "\"");
  return last;
}

double needed(const std::optional<double>& value, const std::string& where, const char* key) {
  require(value.has_value(), where, ": ", key, " must be set when use_karras_sigmas is true");
  return *value;
}

std::vector<double> uni_pc_sigmas(const UniPcConfig& config, int64_t steps, bool nvidia,
                                  const std::string& where) {
  std::vector<double> sigmas;
  if (config.use_karras_sigmas) {
    sigmas =
        karras_sigmas(needed(config.sigma_max, where, "sigma_max"),
                      needed(config.sigma_min, where, "sigma_min"), 7, steps + (nvidia ? 1 : 0));
    for (double& sigma : sigmas) sigma /= 1 + sigma;
  } else {
    const auto train = static_cast<double>(config.num_train_timesteps);
    sigmas = nvidia ? linspace(1 - 1 / train, 0, steps + 1) : linspace(1, 1 / train, steps + 1);
    sigmas.pop_back();
    for (double& sigma : sigmas) sigma = shift_sigma(sigma, config.flow_shift);
    // At s = 1 the log signal-to-noise ratio is infinite.
    if (std::abs(sigmas[0] - 1) < 1e-6) sigmas[0] -= 1e-6;
  }
  sigmas.push_back(final_sigma(config.final_sigmas_type, sigmas.back(), where));
  return sigmas;
}

std::vector<double> edm_sigmas(const EdmEulerConfig& config, int64_t steps,
                               const std::string& where) {
  const bool karras = config.sigma_schedule == "karras";
  require(karras || config.sigma_schedule == "exponential", where,
          ": sigma_schedule: expected karras or exponential, got \"", config.sigma_schedule, "\"");
  std::vector<double> sigmas;
  if (karras) {
    sigmas = karras_sigmas(config.sigma_max, config.sigma_min, config.rho, steps);
  } else {  // from below, so that a single step starts at sigma_min, as in diffusers
    sigmas = exponential_sigmas(config.sigma_min, config.sigma_max, steps);
    std::reverse(sigmas.begin(), sigmas.end());
  }
  sigmas.push_back(final_sigma(config.final_sigmas_type, sigmas.back(), where));
  return rounded(std::move(sigmas));
}

std::vector<double> flow_match_sigmas(const FlowMatchEulerConfig& config, int64_t steps,
                                      const std::string& where) {
  // The class applies the shift to its end points when built and to every level again.
  const auto train = static_cast<double>(config.num_train_timesteps);
  auto sigmas = linspace(1, shift_sigma(1 / train, config.shift), steps);
  for (double& sigma : sigmas) sigma = shift_sigma(sigma, config.shift);
  const double high = config.sigma_max.value_or(sigmas.front());
  const double low = config.sigma_min.value_or(sigmas.back());
  if (config.use_karras_sigmas) sigmas = karras_sigmas(high, low, 7, steps);
  if (config.use_exponential_sigmas) sigmas = exponential_sigmas(high, low, steps);
  sigmas.push_back(final_sigma(config.final_sigmas_type, sigmas.back(), where));
  return rounded(std::move(sigmas));
}

void check(const UniPcConfig& config, const std::string& where) {
  refuse(config.thresholding, where, "thresholding");
  refuse(config.use_beta_sigmas, where, "use_beta_sigmas");
  refuse(config.use_exponential_sigmas, where, "use_exponential_sigmas");
  refuse(config.use_dynamic_shifting, where, "use_dynamic_shifting");
  refuse(config.shift_terminal.has_value(), where, "shift_terminal");
  require(
      config.use_flow_sigmas && config.predict_x0 && config.prediction_type == "flow_prediction",
      where, ": expected use_flow_sigmas, predict_x0 and prediction_type flow_prediction");
  require(config.solver_order == 1 || config.solver_order == 2, where,
          ": solver_order: expected 1 or 2, got ", config.solver_order);
  require(config.solver_type == "bh1" || config.solver_type == "bh2", where,
          ": solver_type: expected bh1 or bh2, got \"", config.solver_type, "\"");
}

void check(const FlowMatchEulerConfig& config, const std::string& where) {
  refuse(config.use_dynamic_shifting, where, "use_dynamic_shifting");
  refuse(config.invert_sigmas, where, "invert_sigmas");
  refuse(config.use_beta_sigmas, where, "use_beta_sigmas");
  refuse(config.stochastic_sampling, where, "stochastic_sampling");
  refuse(config.shift_terminal.has_value(), where, "shift_terminal");
}

std::vector<double> distilled_sigmas(const DistilledConfig& config, int64_t steps,
                                     const std::string& where) {
  require(config.shift > 0 && config.trained_steps >= 1, where,
          ": shift, trained_steps: expected positive numbers, got ", config.shift, " and ",
          config.trained_steps);
  const int64_t spread = std::max(steps, config.trained_steps);
  std::vector<double> sigmas;
  for (int64_t i = 0; i < steps; ++i)
    sigmas.push_back(
        shift_sigma(static_cast<double>(spread - i) / static_cast<double>(spread), config.shift));
  sigmas.push_back(0);
  return sigmas;
}

template <typename Config>
Config read(const Json& json, const std::string& where) {
  Config config;
  read_fields(json, config, where, UnknownKeys::kKeep);
  return config;
}

std::unique_ptr<Sampler> make(const Json& config, int64_t steps, bool nvidia,
                              const std::string& where) {
  require(steps >= 1, where, ": sampling needs at least 1 step, got ", steps);
  require(config.is_object() && config.contains("_class_name") && config["_class_name"].is_string(),
          where, ": expected an object with _class_name");
  const std::string name = config["_class_name"];
  if (name == UniPcConfig::kClassName) {
    auto unipc = read<UniPcConfig>(config, where);
    check(unipc, where);
    auto sigmas = uni_pc_sigmas(unipc, steps, nvidia, where);
    return std::make_unique<UniPcSampler>(std::move(unipc), std::move(sigmas));
  }
  if (name == EdmEulerConfig::kClassName) {
    auto edm = read<EdmEulerConfig>(config, where);
    auto sigmas = edm_sigmas(edm, steps, where);
    return std::make_unique<EdmEulerSampler>(std::move(edm), std::move(sigmas));
  }
  if (name == FlowMatchEulerConfig::kClassName) {
    auto flow = read<FlowMatchEulerConfig>(config, where);
    check(flow, where);
    auto sigmas = flow_match_sigmas(flow, steps, where);
    return std::make_unique<FlowMatchEulerSampler>(std::move(flow), std::move(sigmas));
  }
  if (name == Res2abConfig::kClassName) {
    const auto res = read<Res2abConfig>(config, where);
    // The last evaluation, at sigma_min, returns its x0: one level more than steps.
    auto sigmas = karras_sigmas(res.sigma_max, res.sigma_min, res.rho, steps + 1);
    sigmas.push_back(0);
    return std::make_unique<Res2abSampler>(std::move(sigmas));
  }
  if (name == DistilledConfig::kClassName)
    return std::make_unique<DistilledSampler>(
        distilled_sigmas(read<DistilledConfig>(config, where), steps, where));
  if (name == OneStepConfig::kClassName) {
    const auto own = read<OneStepConfig>(config, where);
    require(own.sigma_max > 0, where, ": sigma_max: expected a positive number, got ",
            own.sigma_max);
    require(steps == 1, where, ": ", name, " takes one step, got ", steps);
    return std::make_unique<DistilledSampler>(std::vector<double>{own.sigma_max, 0});
  }
  const std::string near = nearest(
      name, {UniPcConfig::kClassName, EdmEulerConfig::kClassName, FlowMatchEulerConfig::kClassName,
             Res2abConfig::kClassName, DistilledConfig::kClassName, OneStepConfig::kClassName});
  fail(where, ": _class_name: ", name, " is not a sampler of ours",
       near.empty() ? "" : " (did you mean " + near + "?)");
}

}  // namespace

std::vector<double> rounded(std::vector<double> sigmas) {
  for (double& sigma : sigmas) sigma = static_cast<float>(sigma);
  return sigmas;
}

std::vector<double> linspace(double first, double last, int64_t n) {
  const double step = n == 1 ? 0 : (last - first) / static_cast<double>(n - 1);
  std::vector<double> values(n);
  for (int64_t i = 0; i < n; ++i) values[i] = first + step * static_cast<double>(i);
  return values;
}

std::vector<double> karras_sigmas(double sigma_max, double sigma_min, double rho, int64_t n) {
  auto sigmas = linspace(std::pow(sigma_max, 1 / rho), std::pow(sigma_min, 1 / rho), n);
  for (double& sigma : sigmas) sigma = std::pow(sigma, rho);
  return sigmas;
}

std::vector<double> exponential_sigmas(double first, double last, int64_t n) {
  auto sigmas = linspace(std::log(first), std::log(last), n);
  for (double& sigma : sigmas) sigma = std::exp(sigma);
  return sigmas;
}

double shift_sigma(double sigma, double shift) {
  return shift * sigma / (1 + (shift - 1) * sigma);
}

UniPcConfig predict25_scheduler(bool post_trained_2b) {
  UniPcConfig config{.prediction_type = "flow_prediction", .use_flow_sigmas = true};
  if (post_trained_2b) {
    config.use_karras_sigmas = true;
    config.sigma_max = 200;
    config.sigma_min = 0.01;
  } else {
    config.flow_shift = 5;
  }
  return config;
}

std::unique_ptr<Sampler> make_sampler(const Json& config, int64_t steps, const std::string& where) {
  return make(config, steps, /*nvidia=*/false, where);
}

std::unique_ptr<Sampler> make_nvidia_sampler(const Json& config, int64_t steps,
                                             const std::string& where) {
  return make(config, steps, /*nvidia=*/true, where);
}

double nvidia_time(double sigma) {
  return std::trunc(sigma * 1000) * 0.001;
}

}  // namespace cosmos::modules
