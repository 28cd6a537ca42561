#pragma once

#include <string>
#include <string_view>

namespace cosmos::trainer {

/// What an error text of CUDA, NCCL or the driver means and what to do, "" when it is none of
/// those: "hardware: ...; take the machine out", "memory: ...", "program: ...", "network: ...".
std::string explain_gpu_error(std::string_view text);

}  // namespace cosmos::trainer
