#include "modules/transfer/control_model.h"

namespace cosmos::modules {

ControlNetInputs control_net_inputs(const TensorMap& inputs, const std::string& class_name) {
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
      {"view_indices", &out.view_indices},
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
              "conditioning_scale: expected one number or one a block, got shape ", tensor.sizes());
      const Tensor scales = tensor.flatten().to(torch::kFloat64).cpu().contiguous();
      out.conditioning_scale.assign(scales.data_ptr<double>(),
                                    scales.data_ptr<double>() + scales.numel());
    } else {
      const std::string near = nearest(name, known);
      fail(name, ": not an input of ", class_name,
           near.empty() ? "" : " (did you mean " + near + "?)");
    }
  }
  return out;
}

TensorMap ControlModel::run(const std::string& method, const TensorMap& inputs) {
  require(method == "forward", class_name(), " has no method ", method, ": expected forward");
  const ControlNetInputs in = control_net_inputs(inputs, class_name());
  require(in.latents.defined(), "latents: missing");
  require(in.controls_latents.defined(), "controls_latents: missing");
  TensorMap outputs;
  for (const Tensor& residual : forward(in))
    outputs["control_block_samples." + std::to_string(outputs.size())] = residual;
  return outputs;
}

void ControlModel::check_control(const ControlNetInputs& in, int64_t room) const {
  const auto [B, C, T, H, W] = dims<5>(in.latents, "latents");
  check_shape(in.controls_latents, "controls_latents", {B, -1, T, H, W}, "[B, C', T, H, W]");
  require(in.controls_latents.size(1) <= room, "controls_latents: ", in.controls_latents.size(1),
          " channels, the model has room for ", room);
  int64_t channels = C + 1;
  if (in.condition_mask.defined()) {
    check_shape(in.condition_mask, "condition_mask", {B, 1, T, H, W}, "[B, 1, T, H, W]");
    ++channels;
  }
  require(channels == latent_channels(), "latents: ", C, " channels",
          in.condition_mask.defined() ? ", the condition mask" : ", no condition mask",
          " and the padding mask make ", channels, ", the model takes ", latent_channels(),
          " (latent_channels)");
}

DitInputs ControlModel::base_inputs(const ControlNetInputs& in) {
  return {.hidden_states = in.latents,
          .timestep = in.timestep,
          .encoder_hidden_states = in.encoder_hidden_states,
          .img_context = in.img_context,
          .attention_mask = in.attention_mask,
          .fps = in.fps,
          .condition_mask = in.condition_mask,
          .padding_mask = in.padding_mask,
          .context_cache = in.context_cache,
          .view_indices = in.view_indices};
}

Tensor ControlModel::fill_channels(const Tensor& x, int64_t channels) {
  if (x.size(1) == channels) return x;
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes[1] = channels - x.size(1);
  return torch::cat({x, torch::zeros(sizes, x.options())}, 1);
}

Tensor ControlModel::embed(const char* name, PatchEmbed& embed, const DitInputs& inputs) {
  const Tensor x = run_block(name, *embed, {concat_masks(inputs, /*padding_mask=*/true)},
                             [&embed](const Tensors& x) -> Tensors { return {embed(x[0])}; })[0];
  return tokens()->scatter(x, 2);
}

Tensors ControlModel::finish(Tensors hints, const std::vector<double>& scales) const {
  require(!scales.empty(), "conditioning_scale: expected one number or one a block, got none");
  for (std::size_t i = 0; i < hints.size(); ++i) {
    const double scale = scales[i % scales.size()];
    const Tensor hint = tokens()->gather(hints[i], 2).flatten(1, 2);
    hints[i] = scale == 1 ? hint : hint * scale;
  }
  return hints;
}

}  // namespace cosmos::modules
