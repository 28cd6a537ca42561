#include "trainer/recipes/diffusion_config.h"

namespace cosmos::trainer {

modules::DiffusionOptions DiffusionConfig::diffusion(const std::string& where) const {
  auto options =
      modules::published_options(modules::formulation_from(formulation, where + ".formulation"));
  options.shift = shift.value_or(options.shift);
  options.sigma_data = sigma_data.value_or(options.sigma_data);
  options.noise_mean = noise_mean.value_or(options.noise_mean);
  options.noise_std = noise_std.value_or(options.noise_std);
  options.high_sigma_ratio = high_sigma_ratio.value_or(options.high_sigma_ratio);
  options.loss_scale = loss_scale.value_or(options.loss_scale);
  return options;
}

modules::LossFrames DiffusionConfig::loss_over(const std::string& where) const {
  if (loss_frames == "generated") return modules::LossFrames::kGenerated;
  require(loss_frames == "all", where, ".loss_frames: expected generated or all, got \"",
          loss_frames, "\"");
  return modules::LossFrames::kAll;
}

void DiffusionConfig::check(const std::string& where) const {
  const auto options = diffusion(where);
  loss_over(where);
  require(model.is_object() && !model.empty(), where,
          ".model: expected {\"path\": DIR} or a transformer config, got ",
          modules::describe(model));
  require(options.shift > 0, where, ".shift: expected a positive number, got ", options.shift);
  require(options.sigma_data > 0, where, ".sigma_data: expected a positive number, got ",
          options.sigma_data);
  require(options.noise_std > 0, where, ".noise_std: expected a positive number, got ",
          options.noise_std);
  require(text_dropout >= 0 && text_dropout <= 1, where, ".text_dropout: expected 0 to 1, got ",
          text_dropout);
  if (lora) lora->check(where + ".lora");
  double sum = 0;
  for (double p : condition_frames) {
    require(p >= 0, where, ".condition_frames: expected probabilities, got ", p);
    sum += p;
  }
  require(sum > 0, where, ".condition_frames: expected a positive sum of probabilities");
  require(validation_draws >= 1, where, ".validation_draws: expected at least 1, got ",
          validation_draws);
  require(samples.steps >= 1, where, ".samples.steps: expected at least 1, got ", samples.steps);
  require(samples.condition_frames >= 0, where,
          ".samples.condition_frames: expected 0 or more, got ", samples.condition_frames);
}

}  // namespace cosmos::trainer
