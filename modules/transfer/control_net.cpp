#include "modules/transfer/control_net.h"

#include "modules/core/init.h"

namespace cosmos::modules {
namespace {

/// One factor a block: `scales` repeated or cut to `blocks`.
std::vector<double> expand_scales(const std::vector<double>& scales, std::size_t blocks) {
  require(!scales.empty(), "conditioning_scale: expected one number or one a block, got none");
  std::vector<double> expanded(blocks);
  for (std::size_t i = 0; i < blocks; ++i) expanded[i] = scales[i % scales.size()];
  return expanded;
}

Tensor fill_channels(const Tensor& x, int64_t channels) {
  if (x.size(1) == channels) return x;
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes[1] = channels - x.size(1);
  return torch::cat({x, torch::zeros(sizes, x.options())}, 1);
}

}  // namespace

ControlBlockImpl::ControlBlockImpl(const DitConfig& config, bool first)
    : TransformerBlockImpl(config) {
  const int64_t D = config.hidden_size();
  if (first) before_proj_ = register_module("before_proj", Linear(D, D));
  after_proj_ = register_module("after_proj", Linear(D, D));
}

Tensors ControlBlockImpl::forward(const Tensor& x, const Tensor& base,
                                  const BlockContext& context) {
  const Tensor h = TransformerBlockImpl::forward(before_proj_ ? before_proj_(x) + base : x, context);
  return {h, after_proj_(h)};
}

CosmosControlNetModel::CosmosControlNetModel(const ControlNetConfig& config)
    : DitBase(config.dit_config()), net_config_(config) {
  net_config_.check("CosmosControlNetModel");
  {
    SkipInit quiet;  // initialise() writes every parameter once
    DitConfig control = config_;
    control.in_channels = config.in_channels - 1;
    patch_embed_ = register_module("patch_embed", PatchEmbed(control));
    patch_embed_base_ = register_module("patch_embed_base", PatchEmbed(config_));
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

ControlNetInputs CosmosControlNetModel::checked(const ControlNetInputs& in) const {
  const auto [B, C, T, H, W] = dims<5>(in.latents, "latents");
  ControlNetInputs out = in;
  check_shape(in.controls_latents, "controls_latents", {B, -1, T, H, W}, "[B, C', T, H, W]");
  require(in.controls_latents.size(1) <= net_config_.control_channels(), "controls_latents: ",
          in.controls_latents.size(1), " channels, the model has room for ",
          net_config_.control_channels(), " (in_channels - 2)");
  int64_t channels = C + 1;
  if (in.condition_mask.defined()) {
    check_shape(in.condition_mask, "condition_mask", {B, 1, T, H, W}, "[B, 1, T, H, W]");
    ++channels;
  }
  require(channels == net_config_.latent_channels, "latents: ", C, " channels",
          in.condition_mask.defined() ? ", the condition mask" : ", no condition mask",
          " and the padding mask make ", channels, ", the model takes ",
          net_config_.latent_channels, " (latent_channels)");
  out.controls_latents = fill_channels(in.controls_latents, net_config_.control_channels());
  return out;
}

Tensor CosmosControlNetModel::embed(const char* name, PatchEmbed& embed, const DitInputs& inputs) {
  return run_block(name, *embed, {concat_masks(inputs, /*padding_mask=*/true)},
                   [&embed](const Tensors& x) -> Tensors {
                     return {embed(x[0])};
                   })[0];  // [B, t, h w, D]
}

Tensor CosmosControlNetModel::run_control_block(std::size_t index, Tensor& x, const Tensor& base,
                                                const BlockContext& context) {
  ControlBlock& block = control_blocks_[index];
  const Tensors xs = index == 0 ? Tensors{x, base} : Tensors{x};
  const Tensors out = run_with_context(
      "control_blocks." + std::to_string(index), *block, xs, context,
      [block](const Tensors& xs, const BlockContext& c) mutable -> Tensors {
        return block->forward(xs[0], xs.size() > 1 ? xs[1] : Tensor(), c);
      });
  x = out[0];
  return out[1];
}

Tensors CosmosControlNetModel::forward(const ControlNetInputs& inputs) {
  const ControlNetInputs in = checked(inputs);
  DitInputs base{.hidden_states = in.latents,
                 .timestep = in.timestep,
                 .encoder_hidden_states = in.encoder_hidden_states,
                 .img_context = in.img_context,
                 .attention_mask = in.attention_mask,
                 .fps = in.fps,
                 .condition_mask = in.condition_mask,
                 .padding_mask = in.padding_mask};
  check_context(base);
  const PatchGrid grid = grid_of(in.latents);
  const BlockContext context = make_context(base, grid);

  DitInputs control = base;
  control.hidden_states = in.controls_latents;
  if (!control.condition_mask.defined())
    control.condition_mask = torch::zeros_like(in.controls_latents.narrow(1, 0, 1));
  Tensor x = embed("patch_embed", patch_embed_, control);
  const Tensor base_tokens = embed("patch_embed_base", patch_embed_base_, base);

  const auto scales = expand_scales(in.conditioning_scale, control_blocks_.size());
  Tensors residuals;
  for (std::size_t i = 0; i < control_blocks_.size(); ++i) {
    const Tensor hint = run_control_block(i, x, base_tokens, context);
    residuals.push_back((scales[i] == 1 ? hint : hint * scales[i]).flatten(1, 2));
  }
  return residuals;
}

TensorMap CosmosControlNetModel::run(const std::string& method, const TensorMap& inputs) {
  require(method == "forward", "CosmosControlNetModel has no method ", method,
          ": expected forward");
  const ControlNetInputs in = control_net_inputs(inputs);
  require(in.latents.defined(), "latents: missing");
  require(in.controls_latents.defined(), "controls_latents: missing");
  TensorMap outputs;
  for (const Tensor& residual : forward(in))
    outputs["control_block_samples." + std::to_string(outputs.size())] = residual;
  return outputs;
}

void CosmosControlNetModel::copy_base(const CosmosTransformer3DModel& base) {
  const torch::NoGradGuard no_grad;
  const auto theirs = base.named_parameters();
  for (auto& item : named_parameters()) {
    std::string name = item.key();
    if (name.rfind("patch_embed.", 0) == 0) continue;  // reads control latents
    if (name.find("before_proj.") != std::string::npos ||
        name.find("after_proj.") != std::string::npos)
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

ControlNetInputs control_net_inputs(const TensorMap& inputs) {
  ControlNetInputs out;
  const std::map<std::string, Tensor*> slots = {
      {"controls_latents", &out.controls_latents},
      {"latents", &out.latents},
      {"timestep", &out.timestep},
      {"encoder_hidden_states", &out.encoder_hidden_states},
      {"img_context", &out.img_context},
      {"condition_mask", &out.condition_mask},
      {"padding_mask", &out.padding_mask},
      {"attention_mask", &out.attention_mask},
  };
  std::vector<std::string> known = {"fps", "conditioning_scale"};
  for (const auto& [name, slot] : slots) known.push_back(name);
  for (const auto& [name, tensor] : inputs) {
    if (const auto slot = slots.find(name); slot != slots.end()) {
      *slot->second = tensor;
    } else if (name == "fps") {
      require(tensor.numel() == 1, "fps: expected one number, got shape ", tensor.sizes());
      out.fps = tensor.item<double>();
    } else if (name == "conditioning_scale") {
      require(tensor.dim() <= 1 && tensor.numel() > 0,
              "conditioning_scale: expected one number or one a block, got shape ",
              tensor.sizes());
      const Tensor scales = tensor.flatten().to(torch::kFloat64).cpu().contiguous();
      out.conditioning_scale.assign(scales.data_ptr<double>(),
                                    scales.data_ptr<double>() + scales.numel());
    } else {
      const std::string near = nearest(name, known);
      fail(name, ": not an input of CosmosControlNetModel",
           near.empty() ? "" : " (did you mean " + near + "?)");
    }
  }
  return out;
}

}  // namespace cosmos::modules
