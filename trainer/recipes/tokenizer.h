#pragma once

// The "tokenizer" recipe: trains a tokenizer of video or images, continuous or discrete, to give
// clips back.
//
//   {"type": "tokenizer", "model": {"_class_name": "AutoencoderKLCosmos", ...}, "data": {...}}
//
//   loss = mse_weight mean (y - x)² + l1_weight mean |y - x| + kl_weight KL,  x and y in [-1, 1]
//
// KL is that of the posterior (Wan; its sample, from Philox(seed, kNoise, sample index), is what
// the decoder gets), or half the mean square of the latents where there is no distribution
// (Cosmos), and 0 for codes, whose gradient passes straight through the rounding.
//
// Metrics: `mse` of pixels in [0, 1], `psnr` in dB from its mean, and in validation `pca_psnr`, the
// same for the best linear tokenizer of the same compression, fitted to training clips: what needs
// no network at all.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "modules/core/fields.h"
#include "modules/tokenizer/linear_baseline.h"
#include "modules/tokenizer/video_tokenizer.h"
#include "trainer/core/recipe.h"

namespace cosmos::trainer {

struct TokenizerConfig {
  Json model = Json::object();
  std::string init = "default";
  double mse_weight = 1;
  double l1_weight = 0;
  double kl_weight = 1e-6;
  Json data = Json::object();
  std::optional<Json> validation_data;
  std::vector<int64_t> random_crop;
  double color_jitter = 0;
  bool random_reverse = false;
  int64_t baseline_clips = 64;
  int64_t statistics_clips = 64;
  int64_t sample_clips = 2;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("model", model,
      "{\"path\": DIR} of a tokenizer's folder, or its config.json inline for fresh weights");
    v("init", init, "fresh weights: default, or identity (AutoencoderKLCosmos; learns faster)");
    v("mse_weight", mse_weight, "weight of the mean squared error");
    v("l1_weight", l1_weight, "weight of the mean absolute error");
    v("kl_weight", kl_weight, "weight of the KL divergence (mean over latents)");
    v("data", data, "training clips");
    v("validation_data", validation_data, "validation clips; null = no validation");
    v("random_crop", random_crop,
      "[height, width] of the part of each training clip to use, drawn per sample; [] = all of it");
    v("color_jitter", color_jitter,
      "training clips: contrast and brightness of each channel change by up to this fraction");
    v("random_reverse", random_reverse, "play half of the training clips backwards");
    v("baseline_clips", baseline_clips,
      "training clips the linear baseline is fitted to; 0 = none");
    v("statistics_clips", statistics_clips,
      "training clips that latents_mean and latents_std are estimated on before each save");
    v("sample_clips", sample_clips, "clips shown in the report");
  }
};

/// Mean and deviation per latent channel over `clips` items of `data`, evenly spread, each with
/// seed 0 and its number as sample index. The tokenizer is left as it is.
modules::LatentStats estimate_latent_stats(modules::VideoTokenizer& tokenizer, Dataset& data,
                                           int64_t clips);

class TokenizerRecipe : public Recipe {
 public:
  /// Reads and checks the settings; opens nothing.
  TokenizerRecipe(const Json& config, const std::string& where);

  std::shared_ptr<modules::Model> model() override { return tokenizer(); }
  std::shared_ptr<modules::Model> model_for_plan() override;
  std::shared_ptr<Dataset> train_data() override;
  std::shared_ptr<Dataset> validation_data() override;
  Loss loss(const Batch& batch, const StepContext& context) override;
  std::map<std::string, double> start_metrics(const Batch& first,
                                              const StepContext& context) override;
  std::vector<std::filesystem::path> write_samples(const std::filesystem::path& dir,
                                                   int64_t step) override;
  void derive_metrics(Json& row, const std::string& prefix) const override;
  void before_save() override;
  Json resolved_config() const override;
  double tokens_per_sample() const override;

  std::shared_ptr<modules::VideoTokenizer> tokenizer();

 private:
  std::shared_ptr<modules::VideoTokenizer> fresh(bool for_plan) const;
  Loss loss_of(modules::VideoTokenizer& model, const Batch& batch, const StepContext& context);
  Tensor augmented(const Batch& batch, const Tensor& video, const StepContext& context) const;
  modules::LinearBaseline& baseline();
  Json model_config() const;

  TokenizerConfig config_;
  std::string where_;
  std::shared_ptr<modules::VideoTokenizer> tokenizer_;
  std::shared_ptr<Dataset> train_, validation_;
  std::unique_ptr<modules::LinearBaseline> baseline_;
};

std::shared_ptr<Recipe> make_tokenizer_recipe(const Json& config, const std::string& where);

}  // namespace cosmos::trainer
