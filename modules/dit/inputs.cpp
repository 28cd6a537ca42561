// Named tensors -> DitInputs, and the checks on them.

#include "modules/core/fields.h"
#include "modules/dit/transformer.h"

namespace cosmos::modules {
namespace {

constexpr const char* kControlPrefix = "block_controlnet_hidden_states.";

double scalar(const Tensor& value, const char* name) {
  require(value.numel() == 1, name, ": expected one number, got shape ", value.sizes());
  return value.item<double>();
}

std::string shape_text(const Tensor& x) {
  std::ostringstream text;
  if (x.defined()) text << x.sizes();
  return x.defined() ? text.str() : "nothing";
}

/// block_controlnet_hidden_states.0, .1, ... without holes, in the order of the numbers.
Tensors control_residuals(const TensorMap& inputs) {
  Tensors residuals;
  for (;;) {
    const auto found = inputs.find(kControlPrefix + std::to_string(residuals.size()));
    if (found == inputs.end()) return residuals;
    residuals.push_back(found->second);
  }
}

}  // namespace

void check_shape(const Tensor& x, const char* name, std::initializer_list<int64_t> expected,
                 const char* legend) {
  bool fits = x.defined() && x.dim() == static_cast<int64_t>(expected.size());
  int64_t axis = 0;
  for (int64_t size : expected) {
    fits = fits && (size < 0 || x.size(axis) == size);
    ++axis;
  }
  require(fits, name, ": expected ", legend, " = ", at::IntArrayRef(expected), ", got ",
          shape_text(x));
}

DitInputs dit_inputs(const TensorMap& inputs) {
  DitInputs out;
  const std::map<std::string, Tensor*> slots = {
      {"hidden_states", &out.hidden_states},
      {"timestep", &out.timestep},
      {"encoder_hidden_states", &out.encoder_hidden_states},
      {"img_context", &out.img_context},
      {"attention_mask", &out.attention_mask},
      {"condition_mask", &out.condition_mask},
      {"padding_mask", &out.padding_mask},
      {"action", &out.action},
      {"view_indices", &out.view_indices},
  };
  std::vector<std::string> known = {"fps", "block_controlnet_hidden_states.N"};
  for (const auto& [name, slot] : slots) known.push_back(name);

  out.block_controlnet_hidden_states = control_residuals(inputs);
  std::size_t numbered = 0;
  for (const auto& [name, tensor] : inputs) {
    if (const auto slot = slots.find(name); slot != slots.end()) {
      *slot->second = tensor;
    } else if (name == "fps") {
      out.fps = scalar(tensor, "fps");
    } else if (name.rfind(kControlPrefix, 0) == 0) {
      ++numbered;
    } else {
      const std::string near = nearest(name, known);
      fail(name, ": not an input of CosmosTransformer3DModel",
           near.empty() ? "" : " (did you mean " + near + "?)");
    }
  }
  require(numbered == out.block_controlnet_hidden_states.size(), kControlPrefix,
          "N: expected N = 0, 1, 2, ... without holes, got ", numbered, " tensors of which ",
          out.block_controlnet_hidden_states.size(), " follow on from 0");
  return out;
}

void CosmosTransformer3DModel::check(const DitInputs& in) const {
  const auto [B, C, T, H, W] = dims<5>(in.hidden_states, "hidden_states");
  int64_t channels = C;
  if (in.condition_mask.defined()) {
    check_shape(in.condition_mask, "condition_mask", {B, -1, T, H, W}, "[B, 1, T, H, W]");
    channels += in.condition_mask.size(1);
  }
  require(channels == config_.in_channels, "hidden_states: ", C, " channels",
          in.condition_mask.defined() ? " and the condition mask" : " and no condition mask",
          " make ", channels, ", the model takes ", config_.in_channels, " (in_channels)");
  check_context(in);
  check_residuals(in);
}

void DitBase::check_context(const DitInputs& in) const {
  const auto [B, C, T, H, W] = dims<5>(in.hidden_states, "hidden_states");
  const auto& patch = config_.patch_size;
  require(T % patch[0] == 0 && H % patch[1] == 0 && W % patch[2] == 0, "hidden_states: ", T, "x", H,
          "x", W, " latent positions do not divide into patches of ", patch[0], "x", patch[1], "x",
          patch[2], ": crop or pad the latents");
  require(T > 0 && H > 0 && W > 0 && B > 0, "hidden_states: empty, shape ",
          shape_text(in.hidden_states));

  require(in.timestep.defined(), "timestep: missing");
  if (in.timestep.dim() == 5) {
    check_shape(in.timestep, "timestep", {B, 1, T, 1, 1}, "[B, 1, T, 1, 1]");
    require(patch[0] == 1, "timestep: one per frame needs patches of one frame, got patch_size ",
            patch[0]);
  } else {
    require(in.timestep.dim() == 1 && (in.timestep.size(0) == B || in.timestep.size(0) == 1),
            "timestep: expected [B] = [", B, "], or one per frame [B, 1, T, 1, 1], got ",
            shape_text(in.timestep));
  }

  const int64_t text_dim = config_.use_crossattn_projection ? config_.crossattn_proj_in_channels
                                                            : config_.text_embed_dim;
  check_shape(in.encoder_hidden_states, "encoder_hidden_states", {B, -1, text_dim},
              "[B, text tokens, width]");
  if (in.attention_mask.defined()) {
    check_shape(in.attention_mask, "attention_mask", {B, in.encoder_hidden_states.size(1)},
                "[B, text tokens]");
    require(
        in.attention_mask.scalar_type() == torch::kBool || in.attention_mask.is_floating_point(),
        "attention_mask: expected bool (true = attend) or floating (added to the scores), got ",
        in.attention_mask.dtype());
  }
  if (in.img_context.defined()) {
    require(config_.has_image_context(),
            "img_context: this model has no image branch (img_context_dim_in is null)");
    check_shape(in.img_context, "img_context", {B, -1, *config_.img_context_dim_in},
                "[B, image tokens, width]");
  }
  if (in.padding_mask.defined() && config_.concat_padding_mask) {
    const int64_t masks = in.padding_mask.dim() == 4 && in.padding_mask.size(0) == B ? B : 1;
    check_shape(in.padding_mask, "padding_mask", {masks, 1, -1, -1}, "[1 or B, 1, rows, columns]");
  }
  require(!in.fps || *in.fps > 0, "fps: expected a positive number, got ", in.fps.value_or(0));
}

void CosmosTransformer3DModel::check_residuals(const DitInputs& in) const {
  const int64_t B = in.hidden_states.size(0);
  const auto& residuals = in.block_controlnet_hidden_states;
  if (residuals.empty()) return;
  require(
      config_.controlnet_block_every_n.has_value(),
      "block_controlnet_hidden_states: this model takes none (controlnet_block_every_n is null)");
  require(static_cast<int64_t>(residuals.size()) >= config_.num_control_residuals(),
          "block_controlnet_hidden_states: expected ", config_.num_control_residuals(),
          " (one every ", *config_.controlnet_block_every_n, " of ", config_.num_layers,
          " blocks), got ", residuals.size());
  const int64_t tokens = grid_of(in.hidden_states).tokens();
  for (const auto& residual : residuals)
    if (residual.defined())
      check_shape(
          residual, "block_controlnet_hidden_states",
          {residual.dim() > 0 && residual.size(0) == 1 ? 1 : B, tokens, config_.hidden_size()},
          "[B, tokens, width]");
}

}  // namespace cosmos::modules
