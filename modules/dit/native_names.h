#pragma once

// CosmosTransformer3DModel as NVIDIA's repositories write it (GeneralDIT of Predict1, MiniTrainDIT
// of Predict2 and 2.5).

#include "modules/dit/config.h"
#include "modules/hub/lazy_tensor.h"
#include "modules/hub/name_map.h"

namespace cosmos::modules {

enum class DitGeneration { kPredict1, kPredict2 };  ///< 2.5 is spelled as 2 is

/// One block, relative to it; control blocks are spelled alike.
NameMap dit_block_names(DitGeneration generation = DitGeneration::kPredict2);

/// What the base and a control branch of Transfer1 have in common around their blocks, in
/// Predict1's spelling: stem, positions, time.
NameMap predict1_stem_names();

/// Of the network, without a leading "net.".
NameMap dit_native_names(DitGeneration generation);

/// Why a key of a native file has no place in the class: "" when it is not known to be superfluous.
std::string dit_superfluous(const std::string& native);

/// What Predict2's loader wants besides the weights: the rotary embedding's buffers; of a
/// multi-view model one set for each number of cameras up to `cameras`.
TensorMap dit_native_buffers(const DitConfig& config, int64_t cameras = 0);

/// The config that `tensors` (Hugging Face names) have the shapes of. RoPE's scales leave no trace
/// in the weights: they are those of the released model of the same size and inputs. Throws Error
/// when the shapes are no transformer's; `where` names the file.
DitConfig dit_config_of(const LazyTensors& tensors, const std::string& where);

}  // namespace cosmos::modules
