#pragma once

// Where tensors live: the CPU, or a GPU of this machine.

#include <string>

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// The device that `setting` names: "cpu"; "cuda" (number `local_rank`) or "cuda:N"; "auto": "cuda"
/// where this build and machine have a GPU, else "cpu". Throws Error, beginning with `where`, when
/// it names none, or one that is not there.
torch::Device choose_device(const std::string& setting, const std::string& where,
                            int64_t local_rank = 0);

/// The most bytes that tensors on the GPU took at once so far; 0 on the CPU.
int64_t peak_device_bytes(torch::Device device);

/// `x` on the device; from page-locked memory, without waiting for the copy, where that is a GPU.
Tensor to_device(const Tensor& x, torch::Device device);

}  // namespace cosmos::modules
