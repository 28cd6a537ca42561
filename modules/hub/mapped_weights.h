#pragma once

// A model whose weights are the pages of its folder's files: nothing is copied, so that a program
// is as far as its first step when the files have been read, and several of them share the memory.
//
//   auto model = load_model(dir, {.dtype = torch::kBFloat16, .mapped = true});
//
// A weight stays in its file where that has it in the wanted dtype, contiguous and aligned to its
// elements, on the CPU. Others are copied or converted, as load_model() does otherwise. So is a
// second place's that would share its bytes with a first without being tied to it. The numbers are
// those of copies, bit for bit: products were compared at every offset from a cache line's begin.
//
// Files are mapped privately: writing into a weight changes this process alone. Replacing a file by
// renaming another over it, as every writer of this suite does, changes nothing here. Writing into
// one in place may change the weights, and cutting one short ends the program with SIGBUS at the
// next read of what is gone: for programs that read, not for a trainer.

#include "modules/hub/registry.h"
#include "modules/hub/weight_folder.h"

namespace cosmos::modules {

/// Gives `model` the weights of `folder`, strictly (see load_weights), and returns when those that
/// stay are in memory. Their bytes count where allocated ones do (ops/core/peak_memory.h), as long
/// as the weights live.
void load_mapped(Model& model, const WeightFolder& folder, const LoadOptions& options);

}  // namespace cosmos::modules
