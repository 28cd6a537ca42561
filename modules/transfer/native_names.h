#pragma once

// CosmosControlNetModel as NVIDIA's Transfer2.5 writes it: one file holds the base and, in every
// key that says "control", the control branch. And CosmosTransfer1ControlNetModel as Transfer1
// does: a file of its own, with the names of a whole network.

#include "modules/dit/config.h"
#include "modules/hub/lazy_tensor.h"
#include "modules/hub/name_map.h"

namespace cosmos::modules {

/// Keys of the branch, without a leading "net.".
NameMap control_native_names();

/// Parts of the base that the class keeps a copy of: its name -> the base's name, both as the
/// Hugging Face classes spell them (of those, the ones that the base has).
std::string control_copy_of(const std::string& hf_control);

/// Keys of a Transfer1 branch, without a leading "net." or "net_ctrl.".
NameMap transfer1_native_names();

/// As dit_superfluous, of a Transfer1 branch: it ends before the network's head, which its file
/// holds all the same.
std::string transfer1_superfluous(const std::string& native);

/// config.json of the Transfer1 branch with these tensors (Hugging Face names). RoPE's scales leave
/// no trace: they are the released models'. Throws Error when the shapes are no branch's.
Json transfer1_config_of(const LazyTensors& tensors, const std::string& where);

/// config.json of the branch with these tensors (Hugging Face names), on top of `base`.
Json control_config_of(const LazyTensors& tensors, const DitConfig& base, const std::string& where);

}  // namespace cosmos::modules
