#include "modules/transfer/control_net.h"

#include "modules/core/init.h"

namespace cosmos::modules {
ControlBlockImpl::ControlBlockImpl(const DitConfig& config, bool first)
    : TransformerBlockImpl(config) {
  const int64_t D = config.hidden_size();
  if (first) before_proj_ = register_module("before_proj", Linear(D, D));
  after_proj_ = register_module("after_proj", Linear(D, D));
}

Tensors ControlBlockImpl::forward(const Tensor& x, const Tensor& base,
                                  const BlockContext& context) {
  const Tensor h =
      TransformerBlockImpl::forward(before_proj_ ? before_proj_(x) + base : x, context);
  return {h, after_proj_(h)};
}

CosmosControlNetModel::CosmosControlNetModel(const ControlNetConfig& config, int64_t stem_channels)
    : ControlModel(config.dit_config()), net_config_(config) {
  net_config_.check("CosmosControlNetModel");
  {
    SkipInit quiet;  // initialise() writes every parameter once
    DitConfig control = config_;
    control.in_channels = config.in_channels - 1;
    patch_embed_ = register_module("patch_embed", PatchEmbed(control, stem_channels));
    patch_embed_base_ = register_module("patch_embed_base", PatchEmbed(config_, stem_channels));
    register_context();
    auto blocks = add_container(*this, "control_blocks");
    for (int64_t i = 0; i < config.n_controlnet_blocks; ++i)
      control_blocks_.push_back(
          blocks->register_module(std::to_string(i), ControlBlock(config_, /*first=*/i == 0)));
  }
  if (SkipInit::active()) return;
  initialise();
  const torch::NoGradGuard no_grad;
  for (auto& item : named_parameters())
    if (item.key().find("before_proj.") != std::string::npos ||
        item.key().find("after_proj.") != std::string::npos)
      item.value().zero_();
}

Tensor CosmosControlNetModel::run_control_block(std::size_t index, Tensor& x, const Tensor& base,
                                                const BlockContext& context) {
  ControlBlock& block = control_blocks_[index];
  const Tensors xs = index == 0 ? Tensors{x, base} : Tensors{x};
  const Tensors out =
      run_with_context("control_blocks." + std::to_string(index), *block, xs, context,
                       [block](const Tensors& xs, const BlockContext& c) mutable -> Tensors {
                         return block->forward(xs[0], xs.size() > 1 ? xs[1] : Tensor(), c);
                       });
  x = out[0];
  return out[1];
}

Tensors CosmosControlNetModel::forward(const ControlNetInputs& in) {
  check_control(in, net_config_.control_channels());
  const DitInputs base = base_inputs(in);
  check_context(base);
  const BlockContext context = make_context(base, grid_of(in.latents));

  DitInputs control = base;
  control.hidden_states = fill_channels(in.controls_latents, net_config_.control_channels());
  if (!control.condition_mask.defined())
    control.condition_mask = torch::zeros_like(in.controls_latents.narrow(1, 0, 1));
  Tensor x = control_tokens(embed("patch_embed", patch_embed_, control));
  const Tensor base_tokens = embed("patch_embed_base", patch_embed_base_, base);

  Tensors hints;
  for (std::size_t i = 0; i < control_blocks_.size(); ++i)
    hints.push_back(run_control_block(i, x, base_tokens, context));
  return finish(std::move(hints), in.conditioning_scale);
}

void CosmosControlNetModel::copy_base(const CosmosTransformer3DModel& base) {
  const torch::NoGradGuard no_grad;
  const auto theirs = base.named_parameters();
  for (auto& item : named_parameters()) {
    std::string name = item.key();
    if (name.rfind("patch_embed.", 0) == 0) continue;  // reads control latents
    if (name.find("before_proj.") != std::string::npos ||
        name.find("after_proj.") != std::string::npos || name.rfind("hint_embed.", 0) == 0)
      continue;  // what the base has not
    if (name.rfind("patch_embed_base.", 0) == 0) name.replace(0, 16, "patch_embed");
    if (name.rfind("control_blocks.", 0) == 0) name.replace(0, 14, "transformer_blocks");
    const Tensor* found = theirs.find(name);
    require(found != nullptr, name, ": the base has no such weight for the control net's ",
            item.key());
    require(found->sizes() == item.value().sizes(), name, ": the base has ", found->sizes(),
            ", the control net's ", item.key(), " wants ", item.value().sizes());
    item.value().copy_(*found);
  }
}

}  // namespace cosmos::modules
