#pragma once

// Which level of AutoencoderKLCosmos changes resolution and which has attention.

#include <vector>

#include "modules/tokenizer/autoencoder_kl_cosmos.h"

namespace cosmos::modules {

/// Levels of the encoder, finest first. The last one keeps its resolution.
std::vector<CosmosLevelImpl::Options> encoder_levels(const CosmosVaeConfig& config);
/// Levels of the decoder, coarsest first. As in the public class, its first level doubles space
/// only when space is compressed more than time.
std::vector<CosmosLevelImpl::Options> decoder_levels(const CosmosVaeConfig& config);

}  // namespace cosmos::modules
