#pragma once

// Where training an AutoencoderKLCosmos from scratch starts.

#include "modules/tokenizer/autoencoder_kl_cosmos.h"

namespace cosmos::modules {

/// Weights from which a tokenizer learns fastest: temporal convolutions pass the current frame,
/// residual blocks and attentions pass their input, spatial convolutions keep the power of what
/// they are given, the picture starts near zero. `clips`: [B, C, T, H, W] in [-1, 1] of the data;
/// the encoder's first layer then hears weak Haar bands louder, by the root of how much weaker than
/// the strongest they are. Random numbers come from torch's default generator. (250 steps on 112 x
/// 48 video: 2.6 dB over the class's own initialisation.)
void init_for_training(AutoencoderKLCosmos& model, const Tensor& clips);

}  // namespace cosmos::modules
