#pragma once

// The tokenizers as their authors' files write them: Wan2.1_VAE.pth (Cosmos Predict 2's
// tokenizer.pth is the same file), and the modules of Cosmos Tokenizer, which NVIDIA ships as
// TorchScript archives (encoder.jit, decoder.jit, autoencoder.jit).

#include "modules/hub/lazy_tensor.h"
#include "modules/hub/name_map.h"
#include "modules/tokenizer/cosmos_config.h"
#include "modules/tokenizer/image_tokenizer.h"
#include "modules/tokenizer/wan_config.h"

namespace cosmos::modules {

/// AutoencoderKLWan of `levels` widths and `res_blocks` (encoder; the decoder has one more): the
/// decoder's flat list of layers becomes blocks.
NameMap wan_native_names(int64_t levels, int64_t res_blocks);

/// The config that `tensors` (Hugging Face names) have the shapes of; latent statistics are those
/// of the released VAE. Throws Error when they are no Wan VAE's.
WanVaeConfig wan_config_of(const LazyTensors& tensors, const std::string& where);

/// AutoencoderKLCosmos of `levels` levels: its decoder counts them from the other end.
NameMap cosmos_native_names(int64_t levels);

/// As wan_config_of(); of a discrete tokenizer too, whose networks' ends are z_channels wide. The
/// compression and the patch size follow from the resampling layers and the width
/// of the first convolution.
CosmosVaeConfig cosmos_config_of(const LazyTensors& tensors, const std::string& where);

/// The image tokenizers, CosmosImageTokenizer and CosmosDiscreteImageTokenizer.
NameMap image_native_names(int64_t levels);

/// As wan_config_of(); `levels` are the quantiser's, empty for a continuous tokenizer.
ImageTokenizerConfig image_config_of(const LazyTensors& tensors, const std::vector<int64_t>& levels,
                                     const std::string& where);

/// The levels that a discrete tokenizer's file keeps beside its weights (native names); empty when
/// it is a continuous one's.
std::vector<int64_t> quantizer_levels(const LazyTensors& native, const std::string& where);

/// Why a key of a tokenizer's file has no place in the class: "" when not known to be superfluous.
std::string tokenizer_superfluous(const std::string& native);

}  // namespace cosmos::modules
