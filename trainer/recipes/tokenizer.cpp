#include "trainer/recipes/tokenizer.h"

#include <algorithm>
#include <cmath>

#include "modules/core/init.h"
#include "modules/core/random.h"
#include "modules/hub/json_file.h"
#include "modules/hub/registry.h"
#include "modules/registry.h"
#include "modules/tokenizer/autoencoder_kl_wan.h"
#include "modules/tokenizer/cosmos_init.h"
#include "modules/tokenizer/discrete_video.h"
#include "modules/tokenizer/image_tokenizer.h"
#include "trainer/data/media_writer.h"
#include "trainer/data/registry.h"
#include "trainer/recipes/clip_shape.h"

namespace cosmos::trainer {
namespace {

using modules::VideoTokenizer;

constexpr int64_t kInitClips = 16;  // clips that init "identity" looks at
constexpr int64_t kShownFrames = 6;

/// uint8 [..., T, H, W] -> [-1, 1] in the model's dtype, on its device.
Tensor to_model(const Tensor& video, const torch::nn::Module& model) {
  const Tensor weight = model.parameters().front();
  const Tensor there = video.to(weight.device());
  return (there.to(torch::kFloat32) / 127.5 - 1).to(weight.scalar_type());
}

const Tensor& video_of(const Batch& batch) {
  const auto found = batch.tensors.find("video");
  require(found != batch.tensors.end(),
          "tokenizer recipe: the data give no \"video\" (latents? set use_latents to false)");
  return found->second;
}

/// Mean squared error of pixels in [0, 1]; `got` and `want` are in [-1, 1].
Tensor pixel_mse(const Tensor& got, const Tensor& want) {
  const Tensor shown = got.to(torch::kFloat32).clamp(-1, 1);
  return (shown - want.to(torch::kFloat32)).square().mean() / 4;
}

double psnr(double mse) {
  return -10 * std::log10(std::max(mse, 1e-10));
}

/// `count` clips spread evenly over `data`, each [1, C, T, H, W] uint8. Unreadable ones are passed
/// over.
std::vector<Tensor> spread_clips(Dataset& data, int64_t count) {
  std::vector<Tensor> clips;
  std::string reason = "it is empty";
  for (int64_t i = 0; i < count; ++i) {
    // More clips than items: further windows of the same items.
    const int64_t item = count <= data.size() ? i * data.size() / count : i % data.size();
    try {
      clips.push_back(video_of(collate({data.get(item, /*seed=*/0, i)})));
    } catch (const Error& error) {
      reason = error.what();
    }
  }
  require(!clips.empty(), "tokenizer recipe: no readable clip in the data: ", reason);
  return clips;
}

/// A model written into our own config: unknown keys are typos (those of a folder are kept). Keys
/// with an underscore (_class_name, _diffusers_version) are Hugging Face's.
template <typename Config>
void check_fields(const Json& model, const std::string& where) {
  Config config;
  Json own = Json::object();
  for (const auto& [key, value] : model.items())
    if (!key.starts_with("_")) own[key] = value;
  modules::read_fields(own, config, where, modules::UnknownKeys::kRefuse);
  config.check(where);
}

void check_model_config(const Json& model, const std::string& where) {
  const std::string name = model.value("_class_name", "");
  if (name == "AutoencoderKLCosmos") return check_fields<modules::CosmosVaeConfig>(model, where);
  if (name == "AutoencoderKLWan") return check_fields<modules::WanVaeConfig>(model, where);
  if (name == "CosmosDiscreteVideoTokenizer")
    return check_fields<modules::CosmosDiscreteConfig>(model, where);
  if (name == "CosmosImageTokenizer" || name == "CosmosDiscreteImageTokenizer")
    return check_fields<modules::ImageTokenizerConfig>(model, where);
  fail(where, "._class_name: expected AutoencoderKLCosmos, AutoencoderKLWan, ",
       "CosmosDiscreteVideoTokenizer, CosmosImageTokenizer or CosmosDiscreteImageTokenizer, got \"",
       name, "\"");
}

}  // namespace

modules::LatentStats estimate_latent_stats(VideoTokenizer& tokenizer, Dataset& data,
                                           int64_t clips) {
  const torch::NoGradGuard no_grad;
  const int64_t z = tokenizer.latent_channels();
  Tensor sum = torch::zeros({z}, torch::kFloat64), squares = sum.clone();
  double count = 0;
  for (const Tensor& clip : spread_clips(data, clips)) {
    const Tensor latents = tokenizer.encode(to_model(clip, tokenizer))
                               .mode()
                               .cpu()
                               .to(torch::kFloat64)
                               .transpose(0, 1)
                               .flatten(1);
    sum += latents.sum(1);
    squares += latents.square().sum(1);
    count += static_cast<double>(latents.size(1));
  }
  const Tensor mean = sum / count;
  const Tensor std = (squares / count - mean.square()).clamp_min(1e-8).sqrt();
  const auto list = [](const Tensor& x) {
    return std::vector<double>(x.data_ptr<double>(), x.data_ptr<double>() + x.numel());
  };
  modules::LatentStats stats = tokenizer.latent_stats();
  stats.mean = list(mean);
  stats.std = list(std);
  return stats;
}

TokenizerRecipe::TokenizerRecipe(const Json& config, const std::string& where) : where_(where) {
  modules::read_fields(config, config_, where, modules::UnknownKeys::kRefuse);
  require(config_.model.is_object() && !config_.model.empty(), where,
          ".model: expected {\"path\": DIR} or the config.json of a tokenizer");
  require(config_.init == "default" || config_.init == "identity", where,
          ".init: expected default or identity, got \"", config_.init, "\"");
  for (const auto& [name, weight] :
       {std::pair{"mse_weight", config_.mse_weight}, std::pair{"l1_weight", config_.l1_weight},
        std::pair{"kl_weight", config_.kl_weight}})
    require(weight >= 0, where, ".", name, ": expected 0 or more, got ", weight);
  require(config_.mse_weight + config_.l1_weight > 0, where,
          ".mse_weight: with l1_weight also 0 nothing asks for the clip back");
  require(config_.random_crop.empty() || config_.random_crop.size() == 2, where,
          ".random_crop: expected [height, width] or []");
  for (const int64_t size : config_.random_crop)
    require(size >= 1, where, ".random_crop: ", size, " is not a size");
  require(config_.color_jitter >= 0 && config_.color_jitter < 1, where,
          ".color_jitter: expected a value in [0, 1), got ", config_.color_jitter);
  require(config_.statistics_clips >= 1, where, ".statistics_clips: expected at least 1");
  const bool fresh = !config_.model.contains("path");
  require(config_.init == "default" ||
              (fresh && config_.model.value("_class_name", "") == "AutoencoderKLCosmos"),
          where, ".init: identity is for a fresh AutoencoderKLCosmos");
  if (fresh) check_model_config(config_.model, where + ".model");
  config_.data = check_dataset(config_.data, where + ".data");
  if (config_.validation_data)
    config_.validation_data = check_dataset(*config_.validation_data, where + ".validation_data");
}

Json TokenizerRecipe::model_config() const {
  if (!config_.model.contains("path")) return config_.model;
  return modules::read_json(std::filesystem::path(config_.model["path"].get<std::string>()) /
                            "config.json");
}

std::shared_ptr<VideoTokenizer> TokenizerRecipe::fresh(bool for_plan) const {
  std::optional<modules::SkipInit> skip;
  if (for_plan) skip.emplace();
  const std::string where = where_ + ".model";
  auto model =
      std::dynamic_pointer_cast<VideoTokenizer>(modules::make_model(model_config(), where));
  require(model != nullptr, where, ": expected a video tokenizer, got ",
          model_config().value("_class_name", "another class"));
  return model;
}

std::shared_ptr<modules::Model> TokenizerRecipe::model_for_plan() {
  return tokenizer_ ? tokenizer_ : fresh(/*for_plan=*/true);
}

std::shared_ptr<VideoTokenizer> TokenizerRecipe::tokenizer() {
  if (tokenizer_) return tokenizer_;
  if (config_.model.contains("path")) {
    const std::string path = config_.model["path"];
    tokenizer_ = std::dynamic_pointer_cast<VideoTokenizer>(modules::load_model(path));
    require(tokenizer_ != nullptr, path, ": not a video tokenizer");
  } else {
    tokenizer_ = fresh(/*for_plan=*/false);
  }
  require_clips_fit(*tokenizer_, config_.data, where_ + ".data");
  if (config_.validation_data)
    require_clips_fit(*tokenizer_, *config_.validation_data, where_ + ".validation_data");
  if (!config_.random_crop.empty())
    tokenizer_->require_size(config_.random_crop[0], config_.random_crop[1],
                             where_ + ".random_crop");
  if (config_.init == "identity") {
    auto& cosmos = dynamic_cast<modules::AutoencoderKLCosmos&>(*tokenizer_);
    const auto clips = spread_clips(*train_data(), kInitClips);
    init_for_training(cosmos, to_model(torch::cat(clips), cosmos));
  }
  tokenizer_->train();
  return tokenizer_;
}

std::shared_ptr<Dataset> TokenizerRecipe::train_data() {
  if (!train_) train_ = make_dataset(config_.data, where_ + ".data");
  return train_;
}

std::shared_ptr<Dataset> TokenizerRecipe::validation_data() {
  if (!validation_ && config_.validation_data)
    validation_ = make_dataset(*config_.validation_data, where_ + ".validation_data");
  return validation_;
}

modules::LinearBaseline& TokenizerRecipe::baseline() {
  if (!baseline_) {
    const VideoTokenizer& model = *tokenizer();
    baseline_ = std::make_unique<modules::LinearBaseline>(
        model.temporal_compression(), model.spatial_compression(), model.latent_channels());
    for (const Tensor& clip : spread_clips(*train_data(), config_.baseline_clips))
      baseline_->add(clip.to(torch::kFloat32) / 127.5 - 1);
  }
  return *baseline_;
}

Tensor TokenizerRecipe::augmented(const Batch& batch, const Tensor& video,
                                  const StepContext& context) const {
  const bool crop = !config_.random_crop.empty(), jitter = config_.color_jitter > 0;
  if (!crop && !jitter && !config_.random_reverse) return video;
  Tensors clips;
  for (int64_t i = 0; i < video.size(0); ++i) {
    Tensor clip = video[i];  // [C, T, H, W]
    modules::Philox random(context.seed, modules::Purpose::kCondition, batch.indices[i]);
    for (const int64_t dim : {2, 3}) {
      if (!crop) break;
      const int64_t size = config_.random_crop[dim - 2], room = clip.size(dim) - size;
      require(room >= 0, where_, ".random_crop: ", size, " is more than the clip's ",
              clip.size(dim));
      clip = clip.narrow(dim, static_cast<int64_t>(random.below(room + 1)), size);
    }
    if (jitter) {
      const double range = config_.color_jitter;
      const Tensor gain = 1 + range * (2 * random.uniform({clip.size(0), 1, 1, 1}) - 1);
      const Tensor shift = range * (2 * random.uniform({clip.size(0), 1, 1, 1}) - 1);
      clip = (clip * gain.to(clip) + shift.to(clip)).clamp(-1, 1);
    }
    if (config_.random_reverse && random.below(2) == 1) clip = clip.flip(1);
    clips.push_back(clip);
  }
  return torch::stack(clips);
}

Loss TokenizerRecipe::loss(const Batch& batch, const StepContext& context) {
  return loss_of(*tokenizer(), batch, context);
}

Loss TokenizerRecipe::loss_of(VideoTokenizer& model, const Batch& batch,
                              const StepContext& context) {
  Tensor video = to_model(video_of(batch), model);
  if (context.training) video = augmented(batch, video, context);
  const modules::Posterior posterior = model.encode(video);
  Tensor latents = posterior.mode();
  if (context.training && posterior.logvar.defined()) {
    Tensors noise;
    for (const int64_t index : batch.indices)
      noise.push_back(modules::Philox(context.seed, modules::Purpose::kNoise, index)
                          .normal(latents.sizes().slice(1)));
    latents = posterior.sample(torch::stack(noise).to(latents.options()));
  }
  const Tensor picture = model.decode_unclamped(latents);
  require(picture.sizes() == video.sizes(), where_, ".model: a clip of shape ", video.sizes(),
          " comes back as ", picture.sizes(), ": encoder and decoder levels do not match");
  const Tensor difference = (picture - video).to(torch::kFloat32);
  const Tensor kl = posterior.kl().to(torch::kFloat32);
  Loss loss;
  loss.value = config_.kl_weight * kl;
  if (config_.mse_weight > 0)
    loss.value = loss.value + config_.mse_weight * difference.square().mean();
  if (config_.l1_weight > 0) loss.value = loss.value + config_.l1_weight * difference.abs().mean();
  const torch::NoGradGuard no_grad;
  loss.metrics["mse"] = pixel_mse(picture, video);
  loss.metrics["kl"] = kl.detach();
  if (!context.training && config_.baseline_clips > 0)
    loss.metrics["pca_mse"] = pixel_mse(baseline().reconstruct(video.cpu()), video.cpu());
  return loss;
}

std::map<std::string, double> TokenizerRecipe::start_metrics(const Batch& first,
                                                             const StepContext& context) {
  if (!config_.model.contains("path")) return {};
  const torch::NoGradGuard no_grad;
  const auto untrained = fresh(/*for_plan=*/false);
  untrained->to(device());
  return {{"random_init_loss", loss_of(*untrained, first, context).value.item<double>()}};
}

void TokenizerRecipe::derive_metrics(Json& row, const std::string& prefix) const {
  for (const std::string name : {"", "pca_"}) {
    const auto mse = row.find(prefix + name + "mse");
    if (mse != row.end()) row[prefix + name + "psnr"] = psnr(mse->get<double>());
  }
}

void TokenizerRecipe::before_save() {
  if (!tokenizer()->code_levels().empty()) return;  // codes have no statistics
  tokenizer()->set_latent_stats(
      estimate_latent_stats(*tokenizer(), *train_data(), config_.statistics_clips));
}

std::vector<std::filesystem::path> TokenizerRecipe::write_samples(const std::filesystem::path& dir,
                                                                  int64_t step) {
  const torch::NoGradGuard no_grad;
  Dataset& data = validation_data() ? *validation_ : *train_data();
  std::vector<std::filesystem::path> files;
  const auto clips = spread_clips(data, std::min(config_.sample_clips, data.size()));
  for (std::size_t i = 0; i < clips.size(); ++i) {
    const Tensor video = to_model(clips[i], *tokenizer_).cpu();
    const Tensor picture =
        tokenizer_->decode(tokenizer_->encode(to_model(clips[i], *tokenizer_)).mode())
            .clamp(-1, 1)
            .cpu();
    const int64_t frames = video.size(2), shown = std::min(frames, kShownFrames);
    const Tensor at =
        torch::linspace(0, static_cast<double>(frames - 1), shown).round().to(torch::kLong);
    // Upper row the clip, lower row what comes back.
    const Tensor rows = torch::cat(
        {to_frames(video[0]).index_select(0, at), to_frames(picture[0]).index_select(0, at)});
    const std::string name = "step-" + std::to_string(step) + "-clip-" + std::to_string(i);
    files.push_back(dir / (name + ".png"));
    write_png(files.back(), contact_sheet(rows, shown));
    modules::write_json(dir / (name + ".json"),
                        {{"rows", {"clip", "reconstruction"}},
                         {"psnr", psnr(pixel_mse(picture, video).item<double>())}});
  }
  return files;
}

Json TokenizerRecipe::resolved_config() const {
  Json json = modules::write_fields(config_);
  json["type"] = "tokenizer";
  return json;
}

double TokenizerRecipe::tokens_per_sample() const {
  const auto model = tokenizer_ ? tokenizer_ : fresh(/*for_plan=*/true);
  const auto setting = [this](const char* key) {
    return config_.data.contains(key) && config_.data[key].is_number()
               ? config_.data[key].get<int64_t>()
               : 0;
  };
  const int64_t frames = setting("num_frames"), s = model->spatial_compression();
  if (frames < 1) return 0;
  return static_cast<double>(model->latent_frames(frames) * (setting("height") / s) *
                             (setting("width") / s));
}

std::shared_ptr<Recipe> make_tokenizer_recipe(const Json& config, const std::string& where) {
  modules::register_builtin_models();
  return std::make_shared<TokenizerRecipe>(config, where);
}

}  // namespace cosmos::trainer
