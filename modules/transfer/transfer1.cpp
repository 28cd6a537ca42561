#include "modules/transfer/transfer1.h"

#include "modules/core/init.h"

namespace cosmos::modules {

DitConfig Transfer1Config::dit_config() const {
  DitConfig dit;
  dit.in_channels = in_channels;
  dit.num_attention_heads = num_attention_heads;
  dit.attention_head_dim = attention_head_dim;
  dit.num_layers = num_control_blocks;
  dit.mlp_ratio = mlp_ratio;
  dit.text_embed_dim = text_embed_dim;
  dit.adaln_lora_dim = adaln_lora_dim;
  dit.max_size = max_size;
  dit.patch_size = patch_size;
  dit.rope_scale = rope_scale;
  dit.extra_pos_embed_type = extra_pos_embed_type;
  return dit;
}

void Transfer1Config::check(const std::string& where) const {
  require(num_control_blocks > 0, where, ": num_control_blocks: expected a positive number, got ",
          num_control_blocks);
  require(hint_channels > 0, where, ": hint_channels: expected a positive number, got ",
          hint_channels);
  for (const int64_t width : hint_widths)
    require(width > 0, where, ": hint_widths: expected positive numbers, got ", width);
  dit_config().check(where);
}

Transfer1Config Transfer1Config::from_json(const Json& json, const std::string& where) {
  Transfer1Config config;
  read_fields(json, config, where, UnknownKeys::kKeep);
  config.extra = without_fields(json, config);
  config.check(where);
  return config;
}

Json Transfer1Config::to_json() const {
  Json json = extra;
  json.update(write_fields(*this));
  json["_class_name"] = "CosmosTransfer1ControlNetModel";
  return json;
}

CosmosTransfer1ControlNetModel::CosmosTransfer1ControlNetModel(const Transfer1Config& config)
    : ControlModel(config.dit_config()), net_config_(config) {
  net_config_.check("CosmosTransfer1ControlNetModel");
  const int64_t D = config_.hidden_size();
  {
    SkipInit quiet;  // initialise() writes every parameter once
    DitConfig hint = config_;
    hint.in_channels = config.hint_channels;
    patch_embed_ = register_module("patch_embed", PatchEmbed(config_));
    patch_embed_hint_ = register_module("patch_embed_hint", PatchEmbed(hint));
    register_context();
    hint_embed_ = add_container(*this, "hint_embed");
    std::vector<int64_t> widths = config.hint_widths;
    widths.push_back(D);
    int64_t before = D;
    for (std::size_t i = 0; i < widths.size(); ++i) {  // even places; SiLU stands between
      hint_products_.push_back(
          hint_embed_->register_module(std::to_string(2 * i), Linear(before, widths[i])));
      before = widths[i];
    }
    auto blocks = add_container(*this, "control_blocks");
    auto zeros = add_container(*this, "zero_blocks");
    for (int64_t i = 0; i < config.num_control_blocks; ++i) {
      control_blocks_.push_back(
          blocks->register_module(std::to_string(i), TransformerBlock(config_)));
      zero_blocks_.push_back(zeros->register_module(std::to_string(i), Linear(D, D)));
    }
  }
  if (SkipInit::active()) return;
  initialise();
  const torch::NoGradGuard no_grad;
  hint_products_.back()->weight.zero_();
  for (auto& block : zero_blocks_) block->weight.zero_();
}

Tensors CosmosTransfer1ControlNetModel::forward(const ControlNetInputs& in) {
  check_control(in, net_config_.hint_channels);
  const DitInputs base = base_inputs(in);
  check_context(base);
  const BlockContext context = make_context(base, grid_of(in.latents));
  DitInputs control = base;
  control.hidden_states = fill_channels(in.controls_latents, net_config_.hint_channels);
  control.condition_mask = Tensor();  // the hint's stem reads none

  Tensor x = embed("patch_embed", patch_embed_, base);
  const Tensor tokens_of_hint = embed("patch_embed_hint", patch_embed_hint_, control);
  const Tensor hint =
      run_block("hint_embed", *hint_embed_, {tokens_of_hint}, [this](const Tensors& h) -> Tensors {
        Tensor y = hint_products_.front()(h[0]);
        for (std::size_t i = 1; i < hint_products_.size(); ++i)
          y = hint_products_[i](torch::silu(y));
        return {y};
      })[0];

  Tensors residuals;
  for (std::size_t i = 0; i < control_blocks_.size(); ++i) {
    TransformerBlock& block = control_blocks_[i];
    const std::string index = std::to_string(i);
    x = run_with_context("control_blocks." + index, *block, {x}, context,
                         [block](const Tensors& xs, const BlockContext& c) mutable -> Tensors {
                           return {block->forward(xs[0], c)};
                         })[0];
    if (i == 0) x = x + hint;
    Linear& zero = zero_blocks_[i];
    residuals.push_back(
        run_block("zero_blocks." + index, *zero, {x},
                  [zero](const Tensors& xs) mutable -> Tensors { return {zero(xs[0])}; })[0]);
  }
  return finish(std::move(residuals), in.conditioning_scale);
}

}  // namespace cosmos::modules
