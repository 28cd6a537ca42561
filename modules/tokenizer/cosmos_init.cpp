#include "modules/tokenizer/cosmos_init.h"

#include <cmath>
#include <string_view>

namespace cosmos::modules {
namespace {

constexpr double kResidual = 1e-3;  // how much a residual block adds at the start
constexpr double kPicture = 0.1;    // size of the decoder's first pictures

void init_parameter(std::string_view name, Tensor& weight) {
  const auto ends = [name](std::string_view suffix) { return name.ends_with(suffix); };
  const auto has = [name](std::string_view part) { return name.find(part) != name.npos; };
  if (has("attentions.") && has("to_out")) {
    weight.zero_();
  } else if (ends("conv_t.weight")) {
    weight.zero_();
    weight.select(2, weight.size(2) - 1).squeeze(-1).squeeze(-1).fill_diagonal_(1);
  } else if (ends("conv_s.weight")) {
    double scale = 1 / std::sqrt(static_cast<double>(weight[0].numel()));
    if (has("resnets.") && ends("conv2.conv_s.weight")) scale *= kResidual;
    if (name == "decoder.conv_out.conv_s.weight") scale *= kPicture;
    weight.normal_(0, scale);
  } else if (ends("conv_t.bias") || ends("conv_s.bias")) {
    weight.zero_();
  }
}

// Factor for each of the encoder's input channels; the total power stays.
Tensor band_gains(const CosmosVaeConfig& config, const Tensor& clips) {
  const PatchType type = config.patch_type == "haar" ? PatchType::kHaar : PatchType::kRearrange;
  const Tensor bands = patchify(clips, config.patch_size, type, /*first=*/true).flatten(0, 3);
  const Tensor power = bands.square().mean(0);
  const Tensor deviation = bands.std(0, /*unbiased=*/false).clamp_min(1e-6);
  const Tensor gains = (deviation.max() / deviation).sqrt();
  return gains * (power.sum() / (power * gains.square()).sum()).sqrt();
}

}  // namespace

void init_for_training(AutoencoderKLCosmos& model, const Tensor& clips) {
  torch::NoGradGuard no_grad;
  auto parameters = model.named_parameters();
  for (auto& item : parameters) init_parameter(item.key(), item.value());
  parameters["encoder.conv_in.conv_s.weight"].mul_(
      band_gains(model.config(), clips).view({1, -1, 1, 1, 1}));
}

}  // namespace cosmos::modules
