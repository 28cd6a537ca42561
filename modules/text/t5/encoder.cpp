#include "modules/text/t5/encoder.h"

#include <cmath>
#include <limits>

#include "modules/core/init.h"
#include "ops/activation/activation.h"

namespace cosmos::modules {

Tensor t5_buckets(int64_t length, const T5Config& config, torch::Device device) {
  const int64_t half = config.relative_attention_num_buckets / 2, exact = half / 2;
  const Tensor at = torch::arange(length, torch::dtype(torch::kInt64).device(device));
  const Tensor distance = at.unsqueeze(0) - at.unsqueeze(1);  // key - query
  const Tensor far = distance.abs();
  const double range = std::log(static_cast<double>(config.relative_attention_max_distance) /
                                static_cast<double>(exact));
  const Tensor coarse =
      exact + ((far.to(torch::kFloat32) / exact).log() / range * (half - exact)).to(torch::kInt64);
  const Tensor bucket = torch::where(far < exact, far, coarse.clamp_max(half - 1));
  return bucket + (distance > 0).to(torch::kInt64) * half;
}

T5AttentionImpl::T5AttentionImpl(const T5Config& config, bool positions) : head_dim_(config.d_kv) {
  const int64_t inner = config.num_heads * config.d_kv;
  q_ = register_module("q", Linear(config.d_model, inner, /*bias=*/false));
  k_ = register_module("k", Linear(config.d_model, inner, /*bias=*/false));
  v_ = register_module("v", Linear(config.d_model, inner, /*bias=*/false));
  o_ = register_module("o", Linear(inner, config.d_model, /*bias=*/false));
  if (positions)
    relative_attention_bias_ =
        register_module("relative_attention_bias",
                        Embedding(config.relative_attention_num_buckets, config.num_heads));
}

Tensor T5AttentionImpl::position_bias(const Tensor& buckets) {
  return relative_attention_bias_(buckets).permute({2, 0, 1}).unsqueeze(0);
}

Tensor T5AttentionImpl::forward(const Tensor& x, const Tensor& bias) {
  Tensors qkv = linear_group(x, {q_, k_, v_});
  for (auto& part : qkv) part = part.unflatten(-1, {-1, head_dim_}).transpose(1, 2);
  const Tensor out = at::scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], bias, /*dropout_p=*/0,
                                                      /*is_causal=*/false, /*scale=*/1.0);
  return o_(out.transpose(1, 2).flatten(-2));
}

T5FeedForwardImpl::T5FeedForwardImpl(const T5Config& config) : activation_(config.activation()) {
  const int64_t D = config.d_model;
  wi_ = register_module(config.gated() ? "wi_0" : "wi", Linear(D, config.d_ff, /*bias=*/false));
  if (config.gated()) wi_1_ = register_module("wi_1", Linear(D, config.d_ff, /*bias=*/false));
  wo_ = register_module("wo", Linear(config.d_ff, D, /*bias=*/false));
}

Tensor T5FeedForwardImpl::forward(const Tensor& x) {
  const char* approximate = activation_ == "gelu_new" ? "tanh" : "none";
  if (wi_1_) {
    const Tensors parts = linear_group(x, {wi_, wi_1_});
    if (activation_ == "silu") return wo_(ops::swiglu(parts[0], parts[1]));
    if (activation_ == "relu") return wo_(parts[0].relu() * parts[1]);
    return wo_(ops::geglu(parts[0], parts[1], approximate));
  }
  const Tensor h = wi_(x);
  if (activation_ == "silu") return wo_(at::silu(h));
  return wo_(activation_ == "relu" ? h.relu() : ops::gelu(h, approximate));
}

T5BlockImpl::T5BlockImpl(const T5Config& config, bool first) {
  auto layer = add_container(*this, "layer");
  auto self_attention = add_container(*layer, "0"), mlp = add_container(*layer, "1");
  const auto norm = [&] { return RmsNorm(config.d_model, config.layer_norm_epsilon); };
  attention = self_attention->register_module("SelfAttention", T5Attention(config, first));
  attention_norm_ = self_attention->register_module("layer_norm", norm());
  feed_forward_ = mlp->register_module("DenseReluDense", T5FeedForward(config));
  feed_forward_norm_ = mlp->register_module("layer_norm", norm());
}

Tensor T5BlockImpl::forward(const Tensor& x, const Tensor& bias) {
  const Tensor h = x + attention(attention_norm_(x), bias);
  return h + feed_forward_(feed_forward_norm_(h));
}

T5EncoderModel::T5EncoderModel(const Json& config, const std::string& where) : source_(config) {
  read_fields(config, config_, where, UnknownKeys::kKeep);
  config_.check(where);
  {
    SkipInit quiet;  // initialise() writes every parameter once
    shared_ = register_module("shared", Embedding(config_.vocab_size, config_.d_model));
    auto encoder = add_container(*this, "encoder");
    encoder->register_module("embed_tokens", shared_);
    auto blocks = add_container(*encoder, "block");
    for (int64_t i = 0; i < config_.num_layers; ++i)
      blocks_.push_back(
          blocks->register_module(std::to_string(i), T5Block(config_, /*first=*/i == 0)));
    final_layer_norm_ = encoder->register_module(
        "final_layer_norm", RmsNorm(config_.d_model, config_.layer_norm_epsilon));
  }
  if (!SkipInit::active()) initialise();
}

void T5EncoderModel::initialise() {
  torch::NoGradGuard no_grad;
  const double model = 1 / std::sqrt(static_cast<double>(config_.d_model));
  const double head = 1 / std::sqrt(static_cast<double>(config_.d_kv));
  for (auto& item : named_parameters()) {
    const std::string& name = item.key();
    Tensor& weight = item.value();
    if (weight.dim() == 1) {
      weight.fill_(1);
      continue;
    }
    double std = model;  // k, v, wi, the position bias
    if (name == "shared.weight" || name == "encoder.embed_tokens.weight") std = 1;
    if (name.ends_with(".q.weight")) std = model * head;
    if (name.ends_with(".o.weight") || name.ends_with(".wo.weight"))
      std = 1 / std::sqrt(static_cast<double>(weight.size(1)));
    weight.normal_(0, config_.initializer_factor * std);
  }
}

Json T5EncoderModel::config_json() const {
  Json json = source_;
  json.update(write_fields(config_));
  json["architectures"] = {class_name()};
  json["model_type"] = "t5";
  return json;
}

TensorMap T5EncoderModel::from_file(TensorMap tensors) const {
  for (auto item = tensors.begin(); item != tensors.end();)
    item = item->first.starts_with("decoder.") || item->first == "lm_head.weight"
               ? tensors.erase(item)
               : std::next(item);
  return tensors;
}

Tensor T5EncoderModel::forward(const Tensor& input_ids, const Tensor& attention_mask) {
  const auto [B, S] = dims<2>(input_ids, "input_ids");
  require(!is_training() || config_.dropout_rate == 0,
          "T5EncoderModel: dropout_rate: ", config_.dropout_rate,
          " cannot be trained with; set it to 0");
  require(input_ids.scalar_type() == torch::kInt64, "input_ids: expected int64, got ",
          input_ids.scalar_type());
  if (input_ids.numel() > 0) {
    const int64_t least = input_ids.min().item<int64_t>(), most = input_ids.max().item<int64_t>();
    require(least >= 0 && most < config_.vocab_size, "input_ids: expected ids from 0 to ",
            config_.vocab_size - 1, " (vocab_size), got ", least < 0 ? least : most);
  }
  Tensor padding;  // [B, 1, 1, S]
  if (attention_mask.defined()) {
    require(attention_mask.sizes() == input_ids.sizes(), "attention_mask: expected shape ",
            input_ids.sizes(), ", got ", attention_mask.sizes());
    const auto dtype = shared_->weight.scalar_type();
    const double lowest = dtype == torch::kFloat64   ? std::numeric_limits<double>::lowest()
                          : dtype == torch::kFloat32 ? std::numeric_limits<float>::lowest()
                                                     : -3.3e38;  // bfloat16's is -3.39e38
    padding = torch::zeros({B, 1, 1, S}, shared_->weight.options())
                  .masked_fill((attention_mask == 0).view({B, 1, 1, S}), lowest);
  }

  Tensor x = run_block("shared", *shared_, {},
                       [&](const Tensors&) -> Tensors { return {shared_(input_ids)}; })[0];
  const Tensor buckets = t5_buckets(S, config_, x.device());
  Tensor bias;
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    T5Block block = blocks_[i];
    const std::string name = "encoder.block." + std::to_string(i);
    if (i > 0) {
      x = run_block(name, *block, {x, bias}, [block](const Tensors& inputs) mutable -> Tensors {
        return {block->forward(inputs[0], inputs[1])};
      })[0];
      continue;
    }
    // The first block makes the bias, which the others take from it.
    const Tensors out = run_block(
        name, *block, {x}, [block, buckets, padding](const Tensors& inputs) mutable -> Tensors {
          Tensor scores = block->attention->position_bias(buckets);
          if (padding.defined()) scores = scores + padding;
          return {block->forward(inputs[0], scores), scores};
        });
    x = out[0];
    bias = out[1];
  }
  return run_block(
      "encoder.final_layer_norm", *final_layer_norm_, {x},
      [this](const Tensors& inputs) -> Tensors { return {final_layer_norm_(inputs[0])}; })[0];
}

TensorMap T5EncoderModel::run(const std::string& method, const TensorMap& inputs) {
  require(method == "forward", "T5EncoderModel has no method ", method, ": expected forward");
  Tensor ids, mask;
  for (const auto& [name, tensor] : inputs) {
    require(name == "input_ids" || name == "attention_mask", name,
            ": not an input of T5EncoderModel (input_ids, attention_mask)");
    (name == "input_ids" ? ids : mask) = tensor;
  }
  require(ids.defined(), "input_ids: missing");
  return {{"last_hidden_state", forward(ids, mask)}};
}

}  // namespace cosmos::modules
