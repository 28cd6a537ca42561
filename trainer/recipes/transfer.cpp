#include "trainer/recipes/transfer.h"

#include "modules/core/init.h"
#include "modules/hub/json_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/registry.h"
#include "modules/pipeline/world_pipeline.h"
#include "modules/transfer/multiview_control_net.h"

namespace cosmos::trainer {
namespace {

using modules::ControlNetConfig;
using modules::CosmosControlNetModel;
using modules::CosmosMultiViewControlNetModel;
using modules::CosmosTransformer3DModel;
using modules::MultiViewControlConfig;

// Apart from the base recipe's draws for the same sample.
constexpr uint64_t kControlStream = uint64_t{1} << 63;

// The settings of this recipe, and the rest: those of the base recipe.
std::pair<Json, Json> split(const Json& config) {
  TransferConfig names;
  modules::FieldNames known;
  names.fields(known);
  Json own = Json::object(), rest = config;
  for (const auto& name : known.names)
    if (config.contains(name)) {
      own[name] = config[name];
      rest.erase(name);
    }
  return {own, rest};
}

// Whether the config is for clips of several cameras.
bool says_views(const Json& config) {
  const Json data = config.value("data", Json::object());
  return config.contains("views") || (data.is_object() && data.contains("cameras"));
}

// Weights of latent frames as those of their tokens.  [B, T] -> [B, t h w, 1]
Tensor frame_map(const Tensor& weights, const Tensor& latents, const std::vector<int64_t>& patch) {
  const int64_t tokens = latents.size(3) / patch[1] * (latents.size(4) / patch[2]);
  return weights.slice(1, 0, weights.size(1), patch[0]).repeat_interleave(tokens, 1).unsqueeze(2);
}

}  // namespace

TransferRecipe::TransferRecipe(const Json& config, const std::string& where)
    : MultiViewRecipe(split(config).second, where, says_views(config)) {
  modules::read_fields(split(config).first, transfer_, where, modules::UnknownKeys::kRefuse);
  require(transfer_.control_dropout >= 0 && transfer_.control_dropout <= 1, where,
          ".control_dropout: expected 0 to 1, got ", transfer_.control_dropout);
  require(transfer_.control_weights == "one" || transfer_.control_weights == "per_frame", where,
          ".control_weights: expected one or per_frame, got ", transfer_.control_weights);
  require(!this->config().lora, where,
          ".lora: the control branch is trained whole; leave lora out");
  const Json& net = transfer_.control_net;
  require(net.is_object(), where, ".control_net: expected an object, got ", modules::describe(net));
  std::vector<std::string> settings = {"path", "n_controlnet_blocks", "control_channels"};
  if (has_views()) settings.emplace_back("hint_layers");
  modules::refuse_unknown(net, settings, where + ".control_net");
  const Json& data = this->config().data;
  require(!data.contains("control") || !data.value("control", "").empty(), where,
          ".data.control: expected edge, blur or the name of a folder of control videos, got none");
}

Json TransferRecipe::resolved_config() const {
  Json json = MultiViewRecipe::resolved_config();
  json.update(modules::write_fields(transfer_));
  json["type"] = "transfer";
  return json;
}

// config.json of `control_net.path`; "" of a fresh net, and where --plan comes before the download.
std::filesystem::path TransferRecipe::net_file() const {
  const std::filesystem::path dir = transfer_.control_net.value("path", "");
  return std::filesystem::exists(dir) ? dir / "config.json" : "";
}

int64_t TransferRecipe::net_blocks() const {
  const std::filesystem::path file = net_file();
  if (file.empty()) return transfer_.control_net.value("n_controlnet_blocks", int64_t{4});
  return ControlNetConfig::from_json(modules::read_json(file), file.string()).n_controlnet_blocks;
}

std::shared_ptr<CosmosControlNetModel> TransferRecipe::fresh_net() const {
  const Json& net = transfer_.control_net;
  const int64_t channels = net.value("control_channels", int64_t{128});
  if (!has_views())
    return std::make_shared<CosmosControlNetModel>(
        ControlNetConfig::of_base(dit_config(), net_blocks(), channels));
  auto config = MultiViewControlConfig::of_base(view_config(), net_blocks(), channels);
  config.hint_layers = net.value("hint_layers", config.hint_layers);
  return std::make_shared<CosmosMultiViewControlNetModel>(config);
}

std::shared_ptr<CosmosControlNetModel> TransferRecipe::read_net() const {
  const std::string path = transfer_.control_net["path"].get<std::string>();
  const auto model = modules::load_model(path);
  const char* wanted = has_views() ? "CosmosMultiViewControlNetModel" : "CosmosControlNetModel";
  require(model->class_name() == wanted, where(), ".control_net.path: ", path, ": expected a ",
          wanted, has_views() ? " (the recipe is for several cameras)" : "", ", got a ",
          model->class_name());
  return std::dynamic_pointer_cast<CosmosControlNetModel>(model);
}

std::shared_ptr<CosmosTransformer3DModel> TransferRecipe::read_transformer() const {
  const std::string path = config().model["path"].get<std::string>();
  require(has_views() || !base_has_views(), where(), ".model.path: ", path,
          " is a model of several cameras: say so with \"views\": {}, and give it their data");
  require(!has_views() || base_has_views(), where(), ".model.path: ", path,
          ": expected a CosmosMultiViewTransformer3DModel: frozen, fresh camera embeddings stay ",
          "as they are drawn; train the base first (recipe multiview)");
  return MultiViewRecipe::read_transformer();
}

std::shared_ptr<CosmosTransformer3DModel> TransferRecipe::transformer() {
  auto base = DiffusionRecipe::transformer();
  if (!frozen_) {
    for (auto& parameter : base->parameters()) parameter.set_requires_grad(false);
    base->to(device());
    frozen_ = true;
  }
  return base;
}

std::shared_ptr<CosmosControlNetModel> TransferRecipe::control_net() {
  if (net_) return net_;
  const auto base = transformer();
  if (transfer_.control_net.contains("path")) {
    net_ = read_net();
  } else {
    net_ = fresh_net();
    net_->copy_base(*base);
  }
  fit_interval(*base, *net_);
  net_->train();
  return net_;
}

std::shared_ptr<modules::Model> TransferRecipe::model_for_plan() {
  if (net_) return net_;
  const modules::SkipInit skip;
  const std::filesystem::path file = net_file();
  if (file.empty()) return fresh_net();
  return modules::make_model(modules::read_json(file), file.string());
}

TransferRecipe::Draws TransferRecipe::draw(const Batch& batch, uint64_t seed, bool training,
                                           int64_t repeat) {
  Draws draws = MultiViewRecipe::draw(batch, seed, training, repeat);
  const auto control = batch.tensors.find("control_latents");
  require(control != batch.tensors.end(), where(), ".data: the samples have no control video");
  const Tensor latents = control->second;
  const int64_t videos = latents.size(1) / draws.x0.size(1), frames = latents.size(2);
  const bool weighted = transfer_.control_weights == "per_frame";
  std::vector<float> keep, weights;
  for (const int64_t index : batch.indices) {
    const int64_t key = training ? index : index * config().validation_draws + repeat;
    modules::Philox random(seed, modules::Purpose::kCondition,
                           static_cast<uint64_t>(key) | kControlStream);
    const bool dropped = random.uniform() < transfer_.control_dropout;
    keep.push_back(dropped && training ? 0.0f : 1.0f);
    for (int64_t i = 0; weighted && i < videos * frames; ++i)
      weights.push_back(static_cast<float>(random.uniform()));
  }
  draws.control.latents = latents * torch::tensor(keep).view({-1, 1, 1, 1, 1}).to(device());
  if (weighted)
    draws.control.weights = torch::tensor(weights).view({-1, videos, frames}).to(device());
  return draws;
}

modules::NetworkOptions TransferRecipe::network_options(const ControlDraw& control,
                                                        std::optional<double> fps) const {
  modules::NetworkOptions options{.fps = fps};
  if (!control.latents.defined()) return options;
  const Tensors videos = control.latents.split(dit_config().out_channels, 1);
  for (std::size_t k = 0; k < videos.size(); ++k) {
    options.branches.push_back({.net = net_, .latents = videos[k]});
    if (transfer_.control_weights != "per_frame") continue;
    const auto index = static_cast<int64_t>(k);
    const Tensor weights = control.weights.defined()
                               ? control.weights.select(1, index)
                               : videos[k].new_ones({videos[k].size(0), videos[k].size(2)});
    options.branches.back().map = frame_map(weights, videos[k], dit_config().patch_size);
  }
  normalize_weights(options.branches);
  return options;
}

std::map<std::string, double> TransferRecipe::start_metrics(const Batch& first,
                                                            const StepContext& context) {
  const torch::NoGradGuard no_grad;
  Draws draws = draw(first, context.seed, context.training, 0);
  draws.control = {};
  return {{"base_loss", sample_losses(*transformer(), draws).mean().item<double>()}};
}

Loss TransferRecipe::loss(const Batch& batch, const StepContext& context) {
  // The trainer turns its model into bfloat16 where it is asked to; the base follows.
  const auto wanted = control_net()->parameters().front().scalar_type();
  auto base = transformer();
  if (base->parameters().front().scalar_type() != wanted) cast_model(*base, wanted, device());
  return DiffusionRecipe::loss(batch, context);
}

// The base runs forward and lets the gradient through, but has none of its own: 2 of 3 parts. The
// branch has a share of its blocks.
double TransferRecipe::flops_per_sample() const {
  const double base = DiffusionRecipe::flops_per_sample();
  const double share =
      static_cast<double>(net_blocks()) / static_cast<double>(dit_config().num_layers);
  return base * (2.0 / 3 + share);
}

std::shared_ptr<Recipe> make_transfer_recipe(const Json& config, const std::string& where) {
  return std::make_shared<TransferRecipe>(config, where);
}

}  // namespace cosmos::trainer
