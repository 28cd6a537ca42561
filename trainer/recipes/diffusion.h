#pragma once

// The "predict" recipe: trains a Cosmos video diffusion transformer on latents of a frozen
// tokenizer, from text, given frames, both or neither.
//
//   {"type": "predict", "model": {...}, "tokenizer": "runs/tok/export", "data": {...}}
//
// Per sample, from Philox(seed, purpose, sample index): the noise level (kTimestep), the noise
// (kNoise), then the number of given frames and whether text is dropped (kCondition). Validation
// has a seed of its own, so that runs with different seeds are measured alike, and tries each clip
// at several levels.
//
// Metrics: `scalar_loss` in validation is the loss of the best predictor c(s) x_s, the clip's noisy
// latents times one number per noise level. For each level c is the least-squares optimum, known in
// closed form from the mean square of the training latents by frame. A model that has learned
// nothing but the level stays there.

#include <memory>
#include <mutex>

#include "modules/dit/transformer.h"
#include "modules/pipeline/control.h"
#include "modules/tokenizer/video_tokenizer.h"
#include "trainer/core/recipe.h"
#include "trainer/recipes/diffusion_config.h"

namespace cosmos::trainer {

class DiffusionRecipe : public Recipe {
 public:
  /// Reads and checks the settings; opens nothing.
  DiffusionRecipe(const Json& config, const std::string& where);

  std::shared_ptr<modules::Model> model() override { return transformer(); }
  std::shared_ptr<modules::Model> model_without_weights() override;
  void read_weights(const TakeWeight& take) override;
  std::shared_ptr<modules::Model> model_for_plan() override;
  std::shared_ptr<Dataset> train_data() override;
  std::shared_ptr<Dataset> validation_data() override;
  Loss loss(const Batch& batch, const StepContext& context) override;
  void prepare(const Batch& batch, const StepContext& context) override;
  std::map<std::string, double> start_metrics(const Batch& first,
                                              const StepContext& context) override;
  std::vector<std::filesystem::path> write_samples(const std::filesystem::path& dir,
                                                   int64_t step) override;
  std::map<std::string, modules::FileContent> adapter_files() override;
  Json resolved_config() const override;
  double flops_per_sample() const override;
  double tokens_per_sample() const override;
  TokenShape token_shape() const override;
  ActivationShape activation_shape(const modules::Model& model,
                                   int64_t element_bytes) const override;
  std::vector<SharedOutput> shared_outputs() const override;
  double tensor_elements_per_sample(bool sequence, int64_t recompute) const override;

  virtual std::shared_ptr<modules::CosmosTransformer3DModel> transformer();
  /// Null when the data are latents.
  std::shared_ptr<modules::VideoTokenizer> tokenizer();

 protected:
  /// Control videos of a batch.
  struct ControlDraw {
    Tensor latents = {};  ///< of k videos, [B, k C, T, H, W]; undefined: none
    Tensor weights = {};  ///< of their frames, [B, k, T]; undefined: 1, as numbers
  };
  /// What is drawn for a batch and what follows from it.
  struct Draws {
    Tensor x0, noise, sigma;  ///< [B, C, T, H, W] twice, [B] float64
    Tensor indicator;         ///< [B, 1, T, 1, 1]
    Tensor levels;            ///< [B, T], sigma at which the network sees each frame
    Tensor text;              ///< [B, S, D]
    std::optional<double> fps;
    std::vector<int64_t> given;
    Tensor action;  ///< [B, T' - 1, A] of a robot; undefined: none
    Tensor views;   ///< [B, V], which camera each view along T is; undefined: one view
    ControlDraw control;
  };
  virtual Draws draw(const Batch& batch, uint64_t seed, bool training, int64_t repeat = 0);
  /// What the network is called with besides the noisy clip.
  virtual modules::NetworkOptions network_options(const ControlDraw& control,
                                                  std::optional<double> fps) const;
  Tensor sample_losses(modules::CosmosTransformer3DModel& model, const Draws& draws) const;
  /// The base as its folder or the config spells it.
  modules::DitConfig dit_config() const;
  /// A model with fresh weights, inside SkipInit with none.
  virtual std::shared_ptr<modules::CosmosTransformer3DModel> fresh_transformer() const;
  /// The model of `model.path`.
  virtual std::shared_ptr<modules::CosmosTransformer3DModel> read_transformer() const;
  const std::string& where() const { return where_; }
  const DiffusionConfig& config() const { return config_; }

 private:
  /// Latent frames, rows and columns of a training clip; zeros when the settings do not say.
  struct Geometry {
    int64_t frames = 0, height = 0, width = 0;
  };
  Loss validation_loss(const Batch& batch);
  Tensor scalar_losses(const Draws& draws);
  void fit_second_moments();
  void add_labels(const Draws& draws, const Tensor& losses, Loss& loss) const;
  std::shared_ptr<Dataset> open_clips(const Json& data, const std::string& name) const;
  std::shared_ptr<Dataset> open_data(std::shared_ptr<Dataset> clips, const Json& data,
                                     const std::string& name);
  Json written_model() const;
  Geometry geometry() const;
  int64_t text_tokens() const;

  DiffusionConfig config_;
  std::string where_;
  modules::DiffusionOptions diffusion_;
  modules::LossFrames loss_frames_;
  std::shared_ptr<modules::CosmosTransformer3DModel> transformer_;
  bool hollow_ = false;  ///< built by model_without_weights()
  std::shared_ptr<modules::VideoTokenizer> tokenizer_;
  std::shared_ptr<Dataset> train_, validation_, validation_clips_;
  std::vector<double> second_moments_;  ///< mean square of training latents, by latent frame
};

std::shared_ptr<Recipe> make_diffusion_recipe(const Json& config, const std::string& where);

}  // namespace cosmos::trainer
