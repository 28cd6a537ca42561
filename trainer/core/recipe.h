#pragma once

// A Recipe is the task: which model, which data, which loss. The training loop knows nothing else.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "modules/core/model.h"
#include "modules/lora/files.h"
#include "trainer/core/dataset.h"
#include "trainer/parallel/context_parallel.h"

namespace cosmos::trainer {

/// Where in the run a loss is computed.
struct StepContext {
  int64_t step = 0;
  uint64_t seed = 0;
  bool training = true;  ///< false in validation: no dropout of text or conditions
};

struct Loss {
  Tensor value;                           ///< scalar, with graph
  std::map<std::string, Tensor> metrics;  ///< scalars to log, detached; averaged over micro-batches
  /// Values to average by label over the run ("sigma/0.2-0.4", "bucket/112x48"): loss by noise
  /// level and by resolution bucket.
  std::vector<std::pair<std::string, double>> by_label;
};

/// Bytes of one sample, by how ranks that share it split them. For --plan.
struct SampleBytes {
  double tokens = 0;  ///< beside split products: sequence parallelism splits them by tokens
  double sliced = 0;  ///< within split products: tensor parallelism, by heads and hidden features
  double whole = 0;   ///< inputs of split products: every rank of "tensor" has all tokens
};

/// What a training step of one sample keeps for backward. For --plan.
struct ActivationShape {
  int64_t blocks = 0;     ///< alike ones; 0: the recipe does not say
  SampleBytes input;      ///< of a block: what it is given, all that recomputation keeps
  SampleBytes attention;  ///< of a block: results of attention
  SampleBytes kept;       ///< of a block: everything, its input included
  SampleBytes working;    ///< of a block's backward, beside what was kept
  SampleBytes rest;       ///< of stem, head and loss
};

/// An output of a block that blocks behind a cut of the model take, too; of a micro-batch of one
/// sample. For --plan of pipelines.
struct SharedOutput {
  std::string block;  ///< or its part with the weights; "": the hidden states, which have gradients
  double elements = 0;
  bool by_tokens = false;  ///< ranks that split tokens have a part each
  bool by_sample = true;   ///< false: one for the whole micro-batch
};

class Recipe {
 public:
  virtual ~Recipe() = default;

  /// Where the model runs and batches come; the trainer says so before it asks for either. The
  /// model may be built anywhere, the trainer moves it; a recipe's companions go there themselves.
  void set_device(torch::Device device) { device_ = device; }

  /// The model whose trainable parameters the optimiser updates. Frozen companions (a tokenizer, a
  /// text encoder) are the recipe's own business.
  virtual std::shared_ptr<modules::Model> model() = 0;

  /// The same model before its weights are there, for ranks of which none may hold them all:
  /// parameters that read_weights() gives are hollow (modules/core/hollow.h). Null: this recipe
  /// builds whole models only. Called in place of model(), which returns it from then on.
  virtual std::shared_ptr<modules::Model> model_without_weights() { return nullptr; }
  using TakeWeight = std::function<void(const std::string& name, const Tensor& whole)>;
  /// Gives every hollow parameter (and buffer) by name, whole, one after another: the numbers that
  /// model() would have put there.
  virtual void read_weights(const TakeWeight& take) {}

  virtual std::shared_ptr<Dataset> train_data() = 0;
  /// Null when there is no validation set.
  virtual std::shared_ptr<Dataset> validation_data() = 0;

  /// Loss of one micro-batch. Noise, timesteps and dropout are drawn per sample from
  /// Philox(context.seed, purpose, batch.indices[i]).
  virtual Loss loss(const Batch& batch, const StepContext& context) = 0;

  /// What a micro-batch's loss weighs among those of its step, on all ranks (learned tokens, where
  /// a loss is a mean over tokens); none: they all weigh the same.
  virtual std::optional<double> loss_weight(const Batch& batch) const { return std::nullopt; }

  /// Sets what blocks need besides their inputs, as the masks of dropout. loss() does it itself; a
  /// pipeline calls it again before a backward that may run blocks once more, since other batches
  /// went through the model in between.
  virtual void prepare(const Batch& batch, const StepContext& context) {}

  /// Scalars to log once, beside the loss of a run's first step (`first` is that step's first
  /// micro-batch). A recipe that starts from a checkpoint gives `random_init_loss` here: the same
  /// loss with freshly initialised weights, so that a checkpoint that was not loaded shows at once.
  virtual std::map<std::string, double> start_metrics(const Batch& first,
                                                      const StepContext& context) {
    return {};
  }

  /// Adds to a row of averaged metrics what follows from them and is not an average itself: PSNR
  /// from the mean squared error. The row's keys are the metrics' names behind `prefix` ("val_" or
  /// "").
  virtual void derive_metrics(Json& row, const std::string& prefix) const {}

  /// Writes what a person would want to look at (frames, clips) below `dir` and returns the PNG
  /// files, in the order in which report.html shows them.
  virtual std::vector<std::filesystem::path> write_samples(const std::filesystem::path& dir,
                                                           int64_t step) {
    return {};
  }

  /// When only an adapter is trained: what others load of it (PEFT folder, diffusers LoRA file), by
  /// file name. The tensors are the model's own parameters; on several ranks they have no bytes,
  /// and the checkpoint takes them from the shards. Called at every checkpoint.
  virtual std::map<std::string, modules::FileContent> adapter_files() { return {}; }

  /// When the whole model is trained: small files that belong beside its weights in a Hugging Face
  /// folder (tokenizer, processor, chat template), by file name. Called at every checkpoint.
  virtual std::map<std::string, std::string> model_files() { return {}; }

  /// Called before every checkpoint, with the weights that an export will hold (the averages when
  /// there are any): the place to bring the model's config up to date, e.g. the statistics of a
  /// tokenizer's latents.
  virtual void before_save() {}

  /// The recipe's settings with every default filled in, for --check and the run's config.json.
  virtual Json resolved_config() const { return Json::object(); }

  /// The model's shape for --plan: parameters may be uninitialised and no weight file is read.
  virtual std::shared_ptr<modules::Model> model_for_plan() { return model(); }

  /// What `model`, from model_for_plan(), keeps for backward. `element_bytes` is 4 for fp32, 2 for
  /// bf16.
  virtual ActivationShape activation_shape(const modules::Model& model,
                                           int64_t element_bytes) const {
    return {};
  }
  /// What travels between stages of a pipeline; empty: unknown.
  virtual std::vector<SharedOutput> shared_outputs() const { return {}; }

  /// Elements of activations that tensor parallelism hands to collectives in one training step for
  /// one sample, 0 when unknown. `sequence`: tokens are split, too. Every `recompute`-th block is
  /// run again in backward; 0: none.
  virtual double tensor_elements_per_sample(bool sequence, int64_t recompute) const { return 0; }
  /// What tokens exchange when they are split over ranks; for --plan.
  virtual TokenShape token_shape() const { return {}; }

  /// FLOPs of one training step for one sample (forward + backward), 0 when unknown.
  virtual double flops_per_sample() const { return 0; }
  /// Tokens the model sees per sample, 0 when unknown.
  virtual double tokens_per_sample() const { return 0; }

 protected:
  torch::Device device() const { return device_; }

 private:
  torch::Device device_ = torch::kCPU;
};

/// Builds a recipe from the "recipe" object of the config, `type` removed.
/// `where` names the object in error messages. The factory only reads and checks settings: it opens
/// no data and builds no model (--check runs on machines that have neither); model() and
/// train_data() do, at their first call.
using RecipeFactory =
    std::function<std::shared_ptr<Recipe>(const Json& config, const std::string& where)>;

/// Makes `type` available to configs: {"recipe": {"type": "my_task", ...}}. Programs that embed the
/// trainer call it before they run a config.
void register_recipe(const std::string& type, RecipeFactory factory);
/// Throws Error naming the nearest known type.
std::shared_ptr<Recipe> make_recipe(const Json& config, const std::string& where);

}  // namespace cosmos::trainer
