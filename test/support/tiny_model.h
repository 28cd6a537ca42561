#pragma once

// A model of a few weights for tests of what surrounds models: names like a transformer's, a tied
// weight, a buffer, a file spelling of its own, a norm that stays float32.

#include <memory>
#include <string>

#include "modules/core/linear.h"
#include "modules/core/model.h"

namespace cosmos::test {

struct TinyBlockImpl : torch::nn::Module {
  explicit TinyBlockImpl(int64_t dim) {
    to_q = register_module("to_q", modules::Linear(dim, dim));
    to_k = register_module("to_k", modules::Linear(dim, dim, /*bias=*/false));
    proj = register_module("proj", modules::Linear(dim, 2 * dim));
    norm = register_parameter("norm", torch::ones({dim}));
  }
  modules::Linear to_q{nullptr}, to_k{nullptr}, proj{nullptr};
  Tensor norm;
};
TORCH_MODULE(TinyBlock);

class TinyModel : public modules::Model {
 public:
  explicit TinyModel(Json config) : config_(std::move(config)) {
    const auto dim = config_.value("dim", int64_t{4});
    const auto blocks = config_.value("blocks", int64_t{2});
    for (int64_t i = 0; i < blocks; ++i) blocks_->push_back(TinyBlock(dim));
    register_module("blocks", blocks_);
    head = register_module("head", modules::Linear(2 * dim, 3));
    tied = register_parameter("tied", blocks_[0]->as<TinyBlock>()->norm);
    register_buffer("mean", torch::zeros({2}));
  }
  std::string class_name() const override { return "TinyModel"; }
  Json config_json() const override { return config_; }
  std::string file_key(const std::string& name) const override {
    return name == "mean" ? "stats.mean" : name;
  }
  bool keeps_float32(const std::string& name) const override {
    return name.find("norm") != std::string::npos || name == "tied";
  }
  TensorMap run(const std::string&, const TensorMap& inputs) override {
    return {{"sample", forward(inputs.at("x"))}};
  }
  Tensor forward(Tensor x) {
    for (const auto& module : *blocks_) {
      auto* block = module->as<TinyBlock>();
      const auto qk = modules::linear_group(x, {block->to_q, block->to_k});
      x = qk[0] * torch::sigmoid(qk[1]) * block->norm + x;
      last = block->proj->forward(x);
    }
    return head->forward(last);
  }

  modules::Linear head{nullptr};
  Tensor tied, last;

 private:
  Json config_;
  torch::nn::ModuleList blocks_;
};

inline std::shared_ptr<TinyModel> tiny_model(const Json& extra = Json::object()) {
  Json config = {{"_class_name", "TinyModel"}, {"_diffusers_version", "0.42.1"}, {"dim", 4}};
  config.update(extra);
  return std::make_shared<TinyModel>(config);
}

}  // namespace cosmos::test
