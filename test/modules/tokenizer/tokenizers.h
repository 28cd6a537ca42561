#pragma once

// Tiny tokenizers whose weights follow the formula of test/reference/tokenizer_golden.py.

#include <cmath>
#include <memory>
#include <string>

#include "modules/tokenizer/autoencoder_kl_cosmos.h"
#include "modules/tokenizer/autoencoder_kl_wan.h"

namespace cosmos::test {

inline Tensor wave(at::IntArrayRef shape, double phase) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  const Tensor i = torch::arange(count, torch::kFloat64);
  return (0.37 * i.pow(1.1) + phase).sin().to(torch::kFloat32).view(shape);
}

inline void fill(modules::Model& model) {
  torch::NoGradGuard no_grad;
  for (auto& item : model.named_parameters()) {
    Tensor& weight = item.value();
    int64_t bytes = 0;
    for (unsigned char c : item.key()) bytes += c;
    const Tensor values = wave(weight.sizes(), static_cast<double>(bytes % 97));
    const bool bias = item.key().ends_with("bias");
    if (weight.dim() > 1 && !item.key().ends_with("gamma"))
      weight.copy_(values * 1.4 / std::sqrt(static_cast<double>(weight[0].numel())));
    else
      weight.copy_(bias ? 0.2 * values : 1 + 0.2 * values);
  }
}

inline std::shared_ptr<modules::VideoTokenizer> make(const std::string& name, const Json& config) {
  std::shared_ptr<modules::VideoTokenizer> model;
  if (name == "AutoencoderKLWan")
    model = std::make_shared<modules::AutoencoderKLWan>(config);
  else
    model = std::make_shared<modules::AutoencoderKLCosmos>(config);
  model->eval();
  fill(*model);
  return model;
}

inline const Json& cosmos_config() {
  static const Json config = Json::parse(R"({"latent_channels": 3,
    "encoder_block_out_channels": [4, 6, 8, 8], "decode_block_out_channels": [4, 6, 8, 8],
    "attention_resolutions": [16], "resolution": 64, "num_layers": 1, "patch_size": 2,
    "spatial_compression_ratio": 8, "temporal_compression_ratio": 4,
    "latents_mean": [0.1, 0.2, 0.3], "latents_std": [1, 2, 4]})");
  return config;
}

inline const Json& wan_config() {
  static const Json config = Json::parse(R"({"base_dim": 4, "z_dim": 2, "dim_mult": [1, 2, 2],
    "num_res_blocks": 1, "temperal_downsample": [true, true],
    "latents_mean": [0.5, -0.5], "latents_std": [2, 3]})");
  return config;
}

inline const Json& wan22_config() {
  static const Json config = Json::parse(R"({"base_dim": 4, "z_dim": 2, "dim_mult": [1, 2, 2],
    "num_res_blocks": 1, "temperal_downsample": [true, true], "is_residual": true,
    "patch_size": 2, "in_channels": 12, "out_channels": 12,
    "latents_mean": [0, 0], "latents_std": [1, 1]})");
  return config;
}

inline double relative(const Tensor& got, const Tensor& want) {
  return ((got - want).norm() / want.norm()).item<double>();
}

}  // namespace cosmos::test
