#include "modules/transnet/transnet.h"

#include "modules/core/init.h"
#include "modules/core/layers.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/weight_source.h"

namespace cosmos::modules {
namespace {

constexpr int64_t kSimilarity = 128;

/// Means of pictures: [B, C, T, H, W] -> [B, T, C]
Tensor picture_means(const Tensor& x) {
  return x.mean({3, 4}).transpose(1, 2);
}

}  // namespace

TransNetV2::TransNetV2(const Json& config, const std::string& where)
    : config_(TransNetConfig::from_json(config, where)) {
  extra_ = without_fields(config, config_);
  const auto list = add_container(*this, "SDDCNN");
  int64_t in = 3, features = 0;
  for (int64_t i = 0; i < config_.L; ++i) {
    const int64_t filters = config_.F << i;
    stacks_.push_back(
        list->register_module(std::to_string(i), DilatedConvStack(in, filters, config_.S)));
    in = 4 * filters;
    features += in;
  }
  int64_t width = in * (kTransNetHeight >> config_.L) * (kTransNetWidth >> config_.L);
  if (config_.use_frame_similarity) {
    frame_sim_layer_ = register_module("frame_sim_layer", FrameSimilarity(features));
    width += kSimilarity;
  }
  if (config_.use_color_histograms) {
    color_hist_layer_ = register_module("color_hist_layer", ColorHistograms());
    width += kSimilarity;
  }
  fc1_ = register_module("fc1", Linear(width, config_.D));
  cls_layer1_ = register_module("cls_layer1", Linear(config_.D, 1));
  if (config_.use_many_hot_targets)
    cls_layer2_ = register_module("cls_layer2", Linear(config_.D, 1));
}

Json TransNetV2::config_json() const {
  Json json = extra_;
  json.update(write_fields(config_));
  json["_class_name"] = class_name();
  return json;
}

ShotLogits TransNetV2::forward(const Tensor& frames) {
  require(frames.dim() == 5 && frames.scalar_type() == torch::kUInt8 &&
              frames.size(2) == kTransNetHeight && frames.size(3) == kTransNetWidth &&
              frames.size(4) == 3,
          "inputs: expected uint8 [B, T, 27, 48, 3], got ", c10::toString(frames.scalar_type()),
          ' ', frames.sizes());
  Tensor x = frames.permute({0, 4, 1, 2, 3}).to(fc1_->weight.scalar_type()).div(255).contiguous();
  Tensors means;
  for (std::size_t i = 0; i < stacks_.size(); ++i) {
    DilatedConvStack& stack = stacks_[i];
    x = run_block("SDDCNN." + std::to_string(i), *stack, {x},
                  [&](const Tensors& in) { return Tensors{stack->forward(in[0])}; })[0];
    means.push_back(picture_means(x));
  }
  Tensors features = {x.permute({0, 2, 3, 4, 1}).flatten(2)};  // [B, T, H W C]
  if (frame_sim_layer_)
    features.insert(features.begin(), run_block("frame_sim_layer", *frame_sim_layer_,
                                                {torch::cat(means, 2)}, [&](const Tensors& in) {
                                                  return Tensors{frame_sim_layer_->forward(in[0])};
                                                })[0]);
  if (color_hist_layer_)
    features.insert(features.begin(),
                    run_block("color_hist_layer", *color_hist_layer_, {}, [&](const Tensors&) {
                      return Tensors{color_hist_layer_->forward(frames)};
                    })[0]);
  const auto product = [&](const std::string& name, Linear& linear, const Tensor& in) {
    return run_block(name, *linear, {in},
                     [&](const Tensors& given) { return Tensors{linear->forward(given[0])}; })[0];
  };
  const Tensor hidden = torch::relu(product("fc1", fc1_, torch::cat(features, 2)));
  ShotLogits logits{.one_hot = product("cls_layer1", cls_layer1_, hidden), .many_hot = {}};
  if (cls_layer2_) logits.many_hot = product("cls_layer2", cls_layer2_, hidden);
  return logits;
}

TensorMap TransNetV2::run(const std::string& method, const TensorMap& inputs) {
  require(method == "forward", "TransNetV2 has no method \"", method, "\" (it has forward)");
  require(inputs.size() == 1 && inputs.count("inputs") == 1,
          "TransNetV2 takes one input, \"inputs\"");
  const ShotLogits logits = forward(inputs.at("inputs"));
  TensorMap outputs = {{"one_hot", logits.one_hot}};
  if (logits.many_hot.defined()) outputs["many_hot"] = logits.many_hot;
  return outputs;
}

std::shared_ptr<TransNetV2> load_transnet(const std::filesystem::path& weights) {
  const WeightSource source = open_weights(weights);
  const TransNetConfig config = TransNetConfig::of_weights(source.tensors, weights.string());
  std::shared_ptr<TransNetV2> model;
  {
    SkipInit skip;
    model = std::make_shared<TransNetV2>(write_fields(config), weights.string());
  }
  TensorMap tensors;
  for (const auto& [name, tensor] : source.tensors) tensors[name] = tensor.read();
  load_weights(*model, tensors, weights.string());
  model->eval();
  return model;
}

}  // namespace cosmos::modules
