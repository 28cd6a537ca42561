#pragma once

// Settings of the "predict" recipe.

#include <optional>
#include <string>
#include <vector>

#include "modules/core/fields.h"
#include "modules/diffusion/conditioning.h"
#include "modules/diffusion/formulation.h"
#include "modules/lora/config.h"

namespace cosmos::trainer {

/// What write_samples() generates.
struct DiffusionSamplesConfig {
  int64_t steps = 20;
  double guidance = 0;
  int64_t condition_frames = 1;
  int64_t count = 1;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("steps", steps, "sampler steps of a sample clip");
    v("guidance", guidance, "cond + guidance (cond - uncond); 0 = one network call a step");
    v("condition_frames", condition_frames, "latent frames given, from the validation clip");
    v("count", count, "clips generated each time");
  }
};

struct DiffusionConfig {
  Json model = Json::object();
  std::string tokenizer;
  std::string formulation = "rectified_flow";
  std::optional<double> shift, sigma_data, noise_mean, noise_std, high_sigma_ratio, loss_scale;
  std::vector<double> condition_frames = {0.5, 0.25, 0.25};
  double condition_time = -1;
  double text_dropout = 0.2;
  std::string loss_frames = "generated";
  bool pass_fps = false;
  std::string latent_cache = "auto";
  int64_t validation_draws = 4;
  Json data = Json::object();
  std::optional<Json> validation_data;
  std::optional<modules::LoraConfig> lora;
  DiffusionSamplesConfig samples;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("model", model,
      "{\"path\": DIR} of a CosmosTransformer3DModel folder, or its config.json inline for fresh "
      "weights; keys of config.json beside the path say what the folder must hold");
    v("tokenizer", tokenizer, "folder of the frozen video tokenizer; empty: data are latents");
    v("formulation", formulation, "edm, predict2 or rectified_flow");
    v("shift", shift, "rectified_flow: shift of the noise levels (5)");
    v("sigma_data", sigma_data, "edm: deviation that latents are scaled to (0.5)");
    v("noise_mean", noise_mean, "mean of the log (edm, predict2) or logit (rectified_flow)");
    v("noise_std", noise_std, "its deviation");
    v("high_sigma_ratio", high_sigma_ratio, "predict2: share of clips at very high noise (0.05)");
    v("loss_scale", loss_scale, "factor on the loss (predict2: 10)");
    v("condition_frames", condition_frames, "probabilities of 0, 1, 2, ... given latent frames");
    v("condition_time", condition_time, "network time of given frames; -1 = that of the clip");
    v("text_dropout", text_dropout, "share of the clips whose text becomes zeros");
    v("loss_frames", loss_frames, "generated: mean over generated frames; all: given count as 0");
    v("pass_fps", pass_fps, "tell the network the frame rate (Predict1)");
    v("latent_cache", latent_cache,
      "auto: encode a window once when data.windows is all; none: each time; or a folder");
    v("validation_draws", validation_draws,
      "noise levels at which each validation clip is tried; the same in every run");
    v("data", data, "training clips");
    v("validation_data", validation_data, "validation clips; null = no validation");
    v("lora", lora, "train a low-rank adapter instead of the weights");
    v("samples", samples, "clips generated while training");
  }

  /// The formulation's published options with the settings above put in.
  modules::DiffusionOptions diffusion(const std::string& where) const;
  modules::LossFrames loss_over(const std::string& where) const;
  /// Throws Error for settings that cannot work.
  void check(const std::string& where) const;
};

}  // namespace cosmos::trainer
