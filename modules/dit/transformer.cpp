#include "modules/dit/transformer.h"

#include <cmath>

#include "modules/core/init.h"
#include "ops/norm/adaln.h"

namespace cosmos::modules {

void DitBase::register_context() {
  if (config_.has_learnable_positions())
    learnable_pos_embed_ = register_module("learnable_pos_embed", LearnablePosEmbed(config_));
  time_embed_ = register_module("time_embed", TimeEmbed(config_.hidden_size()));
  if (config_.use_crossattn_projection)
    crossattn_proj_ = register_module(
        "crossattn_proj",
        Projection(config_.crossattn_proj_in_channels, config_.encoder_hidden_states_channels));
  if (config_.has_image_context())
    img_context_proj_ = register_module(
        "img_context_proj", Projection(*config_.img_context_dim_in, config_.img_context_dim_out));
}

CosmosTransformer3DModel::CosmosTransformer3DModel(const DitConfig& config, int64_t stem_channels)
    : DitBase(config) {
  config_.check("CosmosTransformer3DModel");
  const int64_t D = config_.hidden_size();
  const auto& patch = config_.patch_size;
  {
    SkipInit quiet;  // initialise() writes every parameter once
    patch_embed_ = register_module("patch_embed", PatchEmbed(config_, stem_channels));
    register_context();
    auto blocks = add_container(*this, "transformer_blocks");
    for (int64_t i = 0; i < config_.num_layers; ++i)
      transformer_blocks_.push_back(
          blocks->register_module(std::to_string(i), TransformerBlock(config_)));
    norm_out_ = register_module("norm_out", Modulation(D, config_.adaln_lora_dim, 2));
    proj_out_ = register_module(
        "proj_out",
        Linear(D, patch[0] * patch[1] * patch[2] * config_.out_channels, /*bias=*/false));
  }
  if (!SkipInit::active()) initialise();
}

void DitBase::initialise_parameter(const std::string& name, Tensor weight) {
  const auto ends_with = [](const std::string& name, const std::string& end) {
    return name.size() >= end.size() &&
           name.compare(name.size() - end.size(), end.size(), end) == 0;
  };
  const torch::NoGradGuard no_grad;
  const bool modulation =
      name.find("norm") != std::string::npos && ends_with(name, "linear_2.weight");
  if (modulation || ends_with(name, ".bias")) {
    weight.zero_();
  } else if (weight.dim() == 1) {
    weight.fill_(1);
  } else {
    // pos_emb_* too: their last dimension is the model's width.
    truncated_normal_(weight, 1.0 / std::sqrt(static_cast<double>(weight.size(1))));
  }
}

void DitBase::initialise() {
  for (auto& item : named_parameters()) initialise_parameter(item.key(), item.value());
}

bool DitBase::keeps_float32(const std::string& name) const {
  return name.rfind("learnable_pos_embed.", 0) == 0;
}

bool DitBase::reads_tokens(const std::string& linear) const {
  if (linear == "proj_out") return true;
  for (const char* part : {"attn1.", "attn2.to_q", "attn2.q_img", "attn2.to_out", ".ff.",
                           "before_proj", "after_proj", "hint_embed.", "zero_blocks."})
    if (linear.find(part) != std::string::npos) return true;
  return false;
}

Tensors DitBase::time_offsets(const DitInputs& in, const PatchGrid&) {
  require(!in.action.defined(), "action: ", class_name(), " takes none");
  return {};
}

int64_t DitBase::views(const DitInputs& in) const {
  require(!in.view_indices.defined(), "view_indices: ", class_name(), " takes none");
  return 1;
}

Tensor CosmosTransformer3DModel::embed_patches(const DitInputs& in) {
  return run_block(
      "patch_embed", *patch_embed_, {concat_masks(in, config_.concat_padding_mask)},
      [this](const Tensors& inputs) -> Tensors { return {patch_embed_(inputs[0])}; })[0];
}

std::vector<std::string> CosmosTransformer3DModel::block_order() const {
  std::vector<std::string> order = {"time_embed"};
  if (config_.use_crossattn_projection) order.emplace_back("crossattn_proj");
  if (config_.has_image_context()) order.emplace_back("img_context_proj");
  if (config_.has_learnable_positions()) order.emplace_back("learnable_pos_embed");
  order.emplace_back("patch_embed");
  for (int64_t i = 0; i < config_.num_layers; ++i)
    order.push_back("transformer_blocks." + std::to_string(i));
  order.insert(order.end(), {"norm_out", "proj_out"});
  return order;
}

PatchGrid DitBase::grid_of(const Tensor& hidden_states) const {
  const auto& patch = config_.patch_size;
  return {.frames = hidden_states.size(2) / patch[0],
          .rows = hidden_states.size(3) / patch[1],
          .columns = hidden_states.size(4) / patch[2]};
}

Tensor concat_masks(const DitInputs& in, bool padding_mask) {
  const auto [B, C, T, H, W] = dims<5>(in.hidden_states, "hidden_states");
  Tensors channels = {in.hidden_states};
  if (in.condition_mask.defined()) channels.push_back(in.condition_mask);
  if (padding_mask) {
    Tensor mask = in.padding_mask.defined()
                      ? in.padding_mask.to(in.hidden_states.scalar_type())
                      : torch::zeros({1, 1, H, W}, in.hidden_states.options());
    mask = torch::upsample_nearest2d(mask, {H, W});
    channels.push_back(mask.unsqueeze(2).expand({B, 1, T, H, W}));
  }
  return channels.size() == 1 ? channels[0] : torch::cat(channels, 1);
}

BlockContext DitBase::make_context(const DitInputs& in, const PatchGrid& grid) {
  BlockContext context;
  const auto dtype = in.hidden_states.scalar_type();
  const int64_t D = config_.hidden_size();

  // One row per sample, or per frame: never per token.
  const int64_t frames = in.timestep.dim() == 5 ? grid.frames : 1;
  Tensor s = sinusoid(in.timestep.flatten(), D).to(dtype).view({-1, frames, 1, D});
  Tensors time = {s};
  for (Tensor& offset : time_offsets(in, grid)) time.push_back(std::move(offset));
  time = run_block("time_embed", *time_embed_, time, [this](const Tensors& inputs) {
    return time_embed_->forward(inputs[0], {inputs.begin() + 1, inputs.end()});
  });
  context.emb = time[0];
  context.temb = time[1];

  const auto project = [&](const char* name, Projection& projection, const Tensor& x) {
    const auto compute = [&] {
      return run_block(name, *projection, {x}, [&projection](const Tensors& inputs) -> Tensors {
        return {projection(inputs[0])};
      });
    };
    return (in.context_cache ? in.context_cache->once(*projection, compute) : compute())[0];
  };
  context.cache = in.context_cache;
  context.views = views(in);
  context.text =
      split_views(config_.use_crossattn_projection
                      ? project("crossattn_proj", crossattn_proj_, in.encoder_hidden_states)
                      : in.encoder_hidden_states,
                  context.views);
  if (in.img_context.defined())
    context.image = project("img_context_proj", img_context_proj_, in.img_context);

  if (learnable_pos_embed_)
    context.positions = run_block("learnable_pos_embed", *learnable_pos_embed_, {},
                                  [this, grid, dtype](const Tensors&) -> Tensors {
                                    return {learnable_pos_embed_->forward(grid, dtype)};
                                  })[0];
  if (context.positions.defined()) context.positions = tokens()->scatter(context.positions, 2);

  context.tokens = tokens();
  PatchGrid view = grid;  // every view starts at frame 0
  view.frames /= context.views;
  const RopeTable rope = rope_table(config_, view, in.fps, in.hidden_states.device());
  const auto mine = [&](const Tensor& table) {
    const Tensor by_frame =
        table.repeat({context.views, 1}).unflatten(0, {grid.frames, grid.tokens_per_frame()});
    return tokens()->scatter_positions(by_frame, 1).flatten(0, 1);
  };
  context.rope = {.cos = mine(rope.cos), .sin = mine(rope.sin)};
  if (in.attention_mask.defined()) {
    context.mask = split_views(in.attention_mask, context.views).unsqueeze(1).unsqueeze(1);
    if (context.mask.is_floating_point()) context.mask = context.mask.to(dtype);
  }
  return context;
}

Tensors DitBase::run_with_context(const std::string& name, torch::nn::Module& block,
                                  const Tensors& xs, const BlockContext& context,
                                  const ContextFn& fn) {
  // Whatever may carry a gradient travels in the list; what is absent is left out of it.
  Tensors inputs = xs;
  inputs.insert(inputs.end(), {context.emb, context.temb, context.text});
  for (const Tensor* optional : {&context.image, &context.positions, &context.residual})
    if (optional->defined()) inputs.push_back(*optional);
  const auto unpack = [count = xs.size(), image = context.image.defined(),
                       positions = context.positions.defined(),
                       residual = context.residual.defined(), tokens = context.tokens,
                       rope = context.rope, mask = context.mask, views = context.views,
                       cache = context.cache, fn](const Tensors& inputs) -> Tensors {
    std::size_t next = count;
    BlockContext c;
    c.emb = inputs[next++];
    c.temb = inputs[next++];
    c.text = inputs[next++];
    if (image) c.image = inputs[next++];
    if (positions) c.positions = inputs[next++];
    if (residual) c.residual = inputs[next++];
    c.tokens = tokens;
    c.rope = rope;
    c.mask = mask;
    c.views = views;
    c.cache = cache;
    return fn({inputs.begin(), inputs.begin() + static_cast<std::ptrdiff_t>(count)}, c);
  };
  return run_block(name, block, inputs, unpack);
}

Tensor CosmosTransformer3DModel::run_transformer_block(int64_t index, const Tensor& x,
                                                       const BlockContext& context) {
  TransformerBlock& block = transformer_blocks_[index];
  return run_with_context("transformer_blocks." + std::to_string(index), *block, {x}, context,
                          [block](const Tensors& xs, const BlockContext& c) mutable -> Tensors {
                            return {block->forward(xs[0], c)};
                          })[0];
}

Tensor CosmosTransformer3DModel::forward(const DitInputs& in) {
  check(in);
  const PatchGrid grid = grid_of(in.hidden_states);
  BlockContext context = make_context(in, grid);

  Tensor x = tokens()->scatter(embed_patches(in), 2);  // [B, t, h w, D]

  const auto& residuals = in.block_controlnet_hidden_states;
  const int64_t every = config_.controlnet_block_every_n.value_or(1);
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    context.residual = Tensor();
    if (!residuals.empty() && i % every == 0 && residuals[i / every].defined()) {
      const Tensor& residual = residuals[i / every];
      context.residual =
          tokens()->scatter(residual.unflatten(1, {grid.frames, grid.tokens_per_frame()}), 2);
    }
    x = run_transformer_block(i, x, context);
  }

  Tensor h = run_block("norm_out", *norm_out_, {x, context.emb, context.temb},
                       [this](const Tensors& inputs) -> Tensors {
                         const auto m = norm_out_(inputs[1], inputs[2]);
                         return {ops::adaln(inputs[0], m.scale, m.shift, kLayerNormEps)};
                       })[0];
  h = run_block("proj_out", *proj_out_, {h}, [this](const Tensors& inputs) -> Tensors {
    return {proj_out_(inputs[0])};
  })[0];  // [B, t, h w, p_h p_w p_t C]
  return unpatchify(tokens()->gather(h, 2), grid, config_.patch_size);
}

TensorMap CosmosTransformer3DModel::run(const std::string& method, const TensorMap& inputs) {
  require(method == "forward", "CosmosTransformer3DModel has no method ", method,
          ": expected forward");
  const DitInputs in = dit_inputs(inputs);
  require(in.hidden_states.defined(), "hidden_states: missing");
  return {{"sample", forward(in)}};
}

}  // namespace cosmos::modules
