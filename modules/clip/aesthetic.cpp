#include "modules/clip/aesthetic.h"

#include <array>

#include "modules/core/fields.h"
#include "modules/core/init.h"
#include "modules/core/layers.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/weight_source.h"

namespace cosmos::modules {
namespace {

constexpr std::array<int, 5> kPlaces = {0, 2, 4, 6, 7};

struct Widths {
  std::vector<int64_t> widths = {768, 1024, 128, 64, 16, 1};

  template <typename Visitor>
  void fields(Visitor& v) {
    v("widths", widths, "of the embedding, then of each layer's output");
  }
};

}  // namespace

AestheticPredictor::AestheticPredictor(const Json& config, const std::string& where) {
  Widths read;
  read_fields(config, read, where, UnknownKeys::kKeep);
  widths_ = read.widths;
  require(widths_.size() == kPlaces.size() + 1 && widths_.back() == 1, where,
          ": widths: expected 6 numbers, the last 1");
  for (const int64_t width : widths_)
    require(width > 0, where, ": widths: expected positive numbers, got ", width);
  auto layers = add_container(*this, "layers");
  for (std::size_t i = 0; i < kPlaces.size(); ++i)
    layers_.push_back(
        layers->register_module(std::to_string(kPlaces[i]), Linear(widths_[i], widths_[i + 1])));
}

Json AestheticPredictor::config_json() const {
  return {{"_class_name", class_name()}, {"widths", widths_}};
}

Tensor AestheticPredictor::forward(const Tensor& embeddings) {
  const auto [B, D] = dims<2>(embeddings, "embeddings");
  require(D == width(), "embeddings: expected [B, ", width(), "], got ", embeddings.sizes());
  Tensor x = embeddings / embeddings.norm(2, -1, /*keepdim=*/true).clamp_min(1e-12);
  for (Linear& layer : layers_) x = layer(x);
  return x.squeeze(-1);
}

TensorMap AestheticPredictor::run(const std::string& method, const TensorMap& inputs) {
  require(method == "forward", class_name(), " has no method \"", method, "\" (it has forward)");
  require(inputs.size() == 1 && inputs.count("embeddings") == 1, class_name(),
          " takes one input, \"embeddings\"");
  return {{"scores", forward(inputs.at("embeddings"))}};
}

std::shared_ptr<AestheticPredictor> load_aesthetic(const std::filesystem::path& weights) {
  const WeightSource source = open_weights(weights);
  std::vector<int64_t> widths;
  for (const int place : kPlaces) {
    const auto found = source.tensors.find("layers." + std::to_string(place) + ".weight");
    require(found != source.tensors.end() && found->second.shape.size() == 2, weights.string(),
            ": expected an aesthetic head (sac+logos+ava1-l14-linearMSE.pth), got a file without "
            "layers.",
            place, ".weight");
    if (widths.empty()) widths.push_back(found->second.shape[1]);
    widths.push_back(found->second.shape[0]);
  }
  std::shared_ptr<AestheticPredictor> head;
  {
    SkipInit skip;
    head = std::make_shared<AestheticPredictor>(Json{{"widths", widths}}, weights.string());
  }
  TensorMap tensors;
  for (const auto& [name, tensor] : source.tensors) tensors[name] = tensor.read();
  load_weights(*head, tensors, weights.string());
  head->eval();
  return head;
}

}  // namespace cosmos::modules
