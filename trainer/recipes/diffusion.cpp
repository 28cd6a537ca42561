#include "trainer/recipes/diffusion.h"

#include <algorithm>
#include <cmath>

#include "modules/core/device.h"
#include "modules/core/hollow.h"
#include "modules/core/init.h"
#include "modules/hub/json_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/registry.h"
#include "modules/lora/files.h"
#include "modules/pipeline/world.h"
#include "trainer/data/registry.h"
#include "trainer/recipes/clip_shape.h"
#include "trainer/recipes/latent_dataset.h"

namespace cosmos::trainer {
namespace {

using modules::CosmosTransformer3DModel;
using modules::DitConfig;
using modules::Formulation;
using modules::Philox;
using modules::Purpose;

// Training items that the scalar baseline is fitted on, at most.
constexpr int64_t kFitItems = 64;

// Of noise and levels in validation, whatever the run's seed.
constexpr uint64_t kValidationSeed = 20251122;

// Follows the run's seed, which the trainer gives to torch before it asks for the model.
uint64_t next_seed() {
  return static_cast<uint64_t>(torch::randint(1LL << 62, {1}).item<int64_t>());
}

template <typename T>
std::shared_ptr<T> load_as(const std::string& dir, const std::string& where,
                           const std::string& expected) {
  auto model = std::dynamic_pointer_cast<T>(modules::load_model(dir));
  require(model != nullptr, where, ": ", dir, " is not ", expected);
  return model;
}

// Noise level mapped to [0, 1): the level itself, or s / (1 + s) where levels have no bound.
double unit_level(Formulation formulation, double sigma) {
  return formulation == Formulation::kRectifiedFlow ? sigma : sigma / (1 + sigma);
}

std::string level_label(Formulation formulation, double sigma) {
  constexpr int kBuckets = 5;
  const int bucket =
      std::min(kBuckets - 1, static_cast<int>(unit_level(formulation, sigma) * kBuckets));
  const char* edges[] = {"0", "0.2", "0.4", "0.6", "0.8", "1"};
  const char* name = formulation == Formulation::kRectifiedFlow ? "sigma/" : "time/";
  return std::string(name) + edges[bucket] + "-" + edges[bucket + 1];
}

}  // namespace

DiffusionRecipe::DiffusionRecipe(const Json& config, const std::string& where) : where_(where) {
  modules::read_fields(config, config_, where, modules::UnknownKeys::kRefuse);
  config_.check(where);
  diffusion_ = config_.diffusion(where);
  loss_frames_ = config_.loss_over(where);
  config_.data = check_dataset(config_.data, where + ".data");
  if (config_.validation_data)
    config_.validation_data = check_dataset(*config_.validation_data, where + ".validation_data");
  if (config_.model.size() > config_.model.count("path"))
    DitConfig::from_json(written_model(), where + ".model");
}

// The model as the config itself spells it, if it does: all of a fresh one, or what the folder of a
// trained one must hold.
Json DiffusionRecipe::written_model() const {
  Json model = config_.model;
  model.erase("path");
  return model;
}

Json DiffusionRecipe::resolved_config() const {
  Json json = modules::write_fields(config_);
  json["type"] = "predict";
  return json;
}

DitConfig DiffusionRecipe::dit_config() const {
  if (!config_.model.contains("path"))
    return DitConfig::from_json(config_.model, where_ + ".model");
  const std::filesystem::path file =
      std::filesystem::path(config_.model["path"].get<std::string>()) / "config.json";
  const Json written = written_model();
  if (!written.empty() && !std::filesystem::exists(file.parent_path()))
    return DitConfig::from_json(written, where_ + ".model");  // --plan before the download
  const DitConfig config = DitConfig::from_json(modules::read_json(file), file.string());
  const Json found = config.to_json();
  for (const auto& [key, value] : written.items())
    require(found.value(key, value) == value, where_, ".model.", key, ": ", file.string(), " has ",
            found.value(key, value).dump(), ", the config expects ", value.dump(),
            ": is it the right checkpoint?");
  return config;
}

std::shared_ptr<CosmosTransformer3DModel> DiffusionRecipe::fresh_transformer() const {
  return std::make_shared<CosmosTransformer3DModel>(dit_config());
}

std::shared_ptr<CosmosTransformer3DModel> DiffusionRecipe::read_transformer() const {
  dit_config();  // what the config says of the folder is true
  return load_as<CosmosTransformer3DModel>(config_.model["path"], where_ + ".model.path",
                                           "a CosmosTransformer3DModel folder");
}

std::shared_ptr<CosmosTransformer3DModel> DiffusionRecipe::transformer() {
  if (!transformer_) {
    const uint64_t adapter_seed = next_seed();
    transformer_ = config_.model.contains("path") ? read_transformer() : fresh_transformer();
    if (config_.lora) apply_lora(*transformer_, *config_.lora, adapter_seed);
    transformer_->train();
  }
  return transformer_;
}

std::shared_ptr<modules::Model> DiffusionRecipe::model_without_weights() {
  // DoRA's magnitudes are norms of the weights.
  if (transformer_ || (config_.lora && config_.lora->use_dora)) return nullptr;
  {
    const modules::HollowInit without_bytes;
    transformer_ = fresh_transformer();
  }
  hollow_ = true;
  const uint64_t adapter_seed = next_seed();
  if (config_.lora) apply_lora(*transformer_, *config_.lora, adapter_seed);
  transformer_->train();
  return transformer_;
}

void DiffusionRecipe::read_weights(const TakeWeight& take) {
  if (config_.model.contains("path")) {
    return modules::read_folder(*transformer_, config_.model["path"].get<std::string>(),
                                [&](const modules::BaseTensor& place, const Tensor& whole) {
                                  take(place.names[0], whole);
                                });
  }
  for (const modules::BaseTensor& place : modules::base_tensors(*transformer_)) {
    const Tensor whole = torch::empty(place.tensor.sizes(), torch::kFloat32);
    CosmosTransformer3DModel::initialise_parameter(place.names[0], whole);
    take(place.names[0], whole);
  }
}

std::shared_ptr<modules::Model> DiffusionRecipe::model_for_plan() {
  if (transformer_) return transformer_;
  const modules::SkipInit skip;
  auto model = fresh_transformer();
  if (config_.lora) apply_lora(*model, *config_.lora);
  return model;
}

std::map<std::string, modules::FileContent> DiffusionRecipe::adapter_files() {
  if (!config_.lora) return {};
  auto files = modules::peft_adapter_files(*transformer());
  files.merge(modules::diffusers_lora_files(*transformer()));
  return files;
}

std::shared_ptr<modules::VideoTokenizer> DiffusionRecipe::tokenizer() {
  if (!tokenizer_ && !config_.tokenizer.empty()) {
    tokenizer_ = load_as<modules::VideoTokenizer>(config_.tokenizer, where_ + ".tokenizer",
                                                  "a video tokenizer's folder");
    tokenizer_->to(device());
    tokenizer_->eval();
    for (auto& parameter : tokenizer_->parameters()) parameter.set_requires_grad(false);
    require_clips_fit(*tokenizer_, config_.data, where_ + ".data");
    if (config_.validation_data)
      require_clips_fit(*tokenizer_, *config_.validation_data, where_ + ".validation_data");
  }
  return tokenizer_;
}

std::shared_ptr<Dataset> DiffusionRecipe::open_data(std::shared_ptr<Dataset> clips,
                                                    const Json& data, const std::string& name) {
  LatentOptions options{.cache = config_.latent_cache, .scale = diffusion_.sigma_data};
  options.fingerprint = data.dump() + config_.tokenizer;
  if (options.cache != "auto" && options.cache != "none") options.cache += "/" + name;
  return latent_dataset(std::move(clips), tokenizer(), data, options, where_);
}

std::shared_ptr<Dataset> DiffusionRecipe::train_data() {
  if (!train_)
    train_ = open_data(make_dataset(config_.data, where_ + ".data"), config_.data, "data");
  return train_;
}

std::shared_ptr<Dataset> DiffusionRecipe::validation_data() {
  if (!validation_ && config_.validation_data) {
    validation_clips_ = make_dataset(*config_.validation_data, where_ + ".validation_data");
    validation_ = open_data(validation_clips_, *config_.validation_data, "validation");
  }
  return validation_;
}

DiffusionRecipe::Draws DiffusionRecipe::draw(const Batch& batch, uint64_t seed, bool training,
                                             int64_t repeat) {
  const auto latents = batch.tensors.find("latents");
  require(latents != batch.tensors.end(), where_, ".data: the samples have no latents");
  Draws draws;
  draws.x0 = latents->second.to(torch::kFloat32);
  const auto [B, C, T, H, W] = dims<5>(draws.x0, "latents");
  if (const auto views = batch.tensors.find("view_indices"); views != batch.tensors.end())
    draws.views = views->second;
  const int64_t views = draws.views.defined() ? draws.views.size(1) : 1;
  const int64_t frames = T / views;  // of a view; each is given its first ones
  const auto text = batch.tensors.find("text_embeds");
  draws.text = text != batch.tensors.end()
                   ? text->second
                   : modules::no_text(*transformer(), B).repeat({1, views, 1}).to(device());
  std::vector<double> sigmas, shown_sigmas;
  std::vector<bool> dropped;
  Tensors noise, shown_noise;
  for (const int64_t index : batch.indices) {
    const auto key =
        static_cast<uint64_t>(training ? index : index * config_.validation_draws + repeat);
    Philox level(seed, Purpose::kTimestep, key);
    sigmas.push_back(draw_sigma(diffusion_, frames, level));
    Philox normal(seed, Purpose::kNoise, key);
    noise.push_back(normal.normal({C, T, H, W}));
    Philox condition(seed, Purpose::kCondition, key);
    const int64_t given =
        modules::draw_condition_frames(config_.condition_frames, condition.uniform());
    draws.given.push_back(std::min(given, frames - 1));  // something must be left to generate
    dropped.push_back(condition.uniform() < config_.text_dropout && training);
    if (diffusion_.formulation != Formulation::kEdm) continue;
    // Predict1 shows given frames under a little noise, ln s ~ N(-3, 2).
    shown_sigmas.push_back(std::exp(-3 + 2 * condition.normal()));
    if (shown_sigmas.back() >= sigmas.back()) draws.given.back() = 0;
    shown_noise.push_back(normal.normal({C, T, H, W}));
  }
  draws.sigma = torch::tensor(sigmas, torch::kFloat64);
  draws.noise = modules::to_device(torch::stack(noise), device());
  draws.indicator = modules::condition_indicator(draws.given, frames).repeat({1, 1, views, 1, 1});
  draws.text = modules::drop_text(draws.text, dropped);
  // Given frames are frames at a level of their own; they bear no loss, so their noise is free.
  Tensor shown = torch::zeros_like(draws.sigma);
  if (!shown_noise.empty()) {
    shown = torch::tensor(shown_sigmas, torch::kFloat64);
    draws.noise = modules::place_frames(
        draws.indicator, modules::to_device(torch::stack(shown_noise), device()), draws.noise);
  }
  draws.levels = modules::frame_levels(draws.indicator, shown, draws.sigma);
  if (const auto action = batch.tensors.find("action"); action != batch.tensors.end())
    draws.action = modules::to_device(action->second, device());
  if (const auto fps = batch.tensors.find("fps"); config_.pass_fps && fps != batch.tensors.end())
    draws.fps = fps->second.flatten()[0].item<double>();
  return draws;
}

modules::NetworkOptions DiffusionRecipe::network_options(const ControlDraw& control,
                                                         std::optional<double> fps) const {
  return {.fps = fps};
}

// Loss of each clip.
Tensor DiffusionRecipe::sample_losses(CosmosTransformer3DModel& model, const Draws& draws) const {
  const Tensor input = mix(input_mixture(diffusion_, draws.levels), draws.x0, draws.noise);
  const Tensor time = modules::frame_timestep(
      draws.indicator, network_time(diffusion_, draws.sigma).to(torch::kFloat32),
      config_.condition_time);
  const Tensor mask = modules::condition_mask(draws.indicator, input.size(3), input.size(4));
  auto options = network_options(draws.control, draws.fps);
  options.action = draws.action;
  options.view_indices = draws.views;
  const Tensor output = modules::dit_network(model, options)(input, time, mask, draws.text);
  return clip_losses(diffusion_, output, draws.x0, draws.noise, draws.sigma,
                     modules::frame_weights(draws.indicator, loss_frames_));
}

void DiffusionRecipe::fit_second_moments() {
  const auto data = train_data();
  const int64_t items = std::min(kFitItems, data->size());
  std::vector<double> sums, counts;
  for (int64_t i = 0; i < items; ++i) {
    const int64_t item = i * data->size() / items;
    const Tensor squares = data->get(item, 0, item).tensors.at("latents").square().mean({0, 2, 3});
    const auto frames = static_cast<std::size_t>(squares.size(0));
    if (sums.size() < frames) sums.resize(frames), counts.resize(frames);
    for (std::size_t t = 0; t < frames; ++t) {
      sums[t] += squares[static_cast<int64_t>(t)].item<double>();
      ++counts[t];
    }
  }
  for (std::size_t t = 0; t < sums.size(); ++t) second_moments_.push_back(sums[t] / counts[t]);
}

// With x = p x0 + q n and target = a x0 + b n, x0 and n independent, E[x0^2] = m, E[n^2] = 1, the
// best c in c x is (a p m + b q) / (p^2 m + q^2).
Tensor DiffusionRecipe::scalar_losses(const Draws& draws) {
  if (second_moments_.empty()) fit_second_moments();
  const modules::Mixture x = noisy_mixture(diffusion_, draws.sigma);        // p, q
  const modules::Mixture target = target_mixture(diffusion_, draws.sigma);  // a, b
  std::vector<double> moments;
  const std::size_t views = draws.views.defined() ? draws.views.size(1) : 1;
  const std::size_t frames = std::max<std::size_t>(second_moments_.size() / views, 1);
  for (const int64_t given : draws.given) {
    const auto begin = std::min<std::size_t>(given, frames - 1);
    double sum = 0, count = 0;
    for (std::size_t t = 0; t < second_moments_.size(); ++t) {
      if (t % frames < begin) continue;
      sum += second_moments_[t];
      ++count;
    }
    moments.push_back(sum / count);
  }
  const Tensor m = torch::tensor(moments, torch::kFloat64);
  const Tensor c =
      (target.x0 * x.x0 * m + target.noise * x.noise) / (x.x0 * x.x0 * m + x.noise * x.noise);
  const modules::Mixture scaled{.x0 = c * x.x0, .noise = c * x.noise};
  const Tensor best = mix(scaled, draws.x0, draws.noise);
  return clip_losses(diffusion_, best, draws.x0, draws.noise, draws.sigma,
                     modules::frame_weights(draws.indicator, loss_frames_));
}

void DiffusionRecipe::add_labels(const Draws& draws, const Tensor& losses, Loss& loss) const {
  const int64_t space = tokenizer_ ? tokenizer_->spatial_compression() : 1;
  const std::string size = "bucket/" + std::to_string(draws.x0.size(4) * space) + "x" +
                           std::to_string(draws.x0.size(3) * space);
  const Tensor values = losses.detach().to(torch::kFloat64).cpu();
  for (int64_t b = 0; b < values.size(0); ++b) {
    const double value = values[b].item<double>();
    const double sigma = draws.sigma[b].item<double>();
    loss.by_label.emplace_back(level_label(diffusion_.formulation, sigma), value);
    loss.by_label.emplace_back(size, value);
  }
}

void DiffusionRecipe::prepare(const Batch& batch, const StepContext& context) {
  if (config_.lora && config_.lora->dropout > 0)
    set_dropout_samples(*transformer(), context.seed,
                        context.training ? batch.indices : std::vector<int64_t>{});
}

Loss DiffusionRecipe::loss(const Batch& batch, const StepContext& context) {
  prepare(batch, context);
  if (!context.training) return validation_loss(batch);
  const Draws draws = draw(batch, context.seed, /*training=*/true);
  const Tensor losses = sample_losses(*transformer(), draws);
  Loss loss{.value = losses.mean(), .metrics = {}, .by_label = {}};
  add_labels(draws, losses, loss);
  return loss;
}

Loss DiffusionRecipe::validation_loss(const Batch& batch) {
  Loss loss{.value = torch::zeros({}, device()), .metrics = {}, .by_label = {}};
  Tensor scalar = torch::zeros({}, device());
  const auto share = 1 / static_cast<double>(config_.validation_draws);
  for (int64_t repeat = 0; repeat < config_.validation_draws; ++repeat) {
    const Draws draws = draw(batch, kValidationSeed, /*training=*/false, repeat);
    const Tensor losses = sample_losses(*transformer(), draws);
    loss.value = loss.value + losses.mean() * share;
    scalar = scalar + scalar_losses(draws).mean() * share;
    add_labels(draws, losses, loss);
  }
  loss.metrics["scalar_loss"] = scalar;
  return loss;
}

std::map<std::string, double> DiffusionRecipe::start_metrics(const Batch& first,
                                                             const StepContext& context) {
  // Not where no process may hold a whole model.
  if (!config_.model.contains("path") || hollow_) return {};
  const torch::NoGradGuard no_grad;
  const auto fresh = fresh_transformer();
  fresh->to(device());
  return {
      {"random_init_loss",
       sample_losses(*fresh, draw(first, context.seed, context.training)).mean().item<double>()}};
}

std::shared_ptr<Recipe> make_diffusion_recipe(const Json& config, const std::string& where) {
  return std::make_shared<DiffusionRecipe>(config, where);
}

}  // namespace cosmos::trainer
