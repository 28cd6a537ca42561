#include "trainer/resilience/gpu_errors.h"

#include <array>

namespace cosmos::trainer {
namespace {

struct Meaning {
  std::string_view text;  // part of the message
  const char* meaning;
};

constexpr const char* kHardware =
    "hardware: the GPU or its link is faulty; take the machine out of the job, see dmesg for the "
    "Xid, and start again";
constexpr const char* kMemory =
    "memory: the GPU is full; more ranks in trainer.parallel.shard, "
    "trainer.activation_checkpointing, or a smaller micro-batch (cosmos-train --plan predicts it)";
constexpr const char* kProgram =
    "program: a kernel went wrong; run once with CUDA_LAUNCH_BLOCKING=1 to see which, and report "
    "it";
constexpr const char* kNetwork =
    "network: a peer or the fabric failed; look for the rank that failed first";
constexpr const char* kDriver = "set-up: the driver does not fit this build or is not loaded";

// From the CUDA runtime's and NCCL's error strings. The first that matches counts.
constexpr std::array<Meaning, 18> kMeanings{{
    {"uncorrectable ECC error", kHardware},
    {"uncorrectable NVLink error", kHardware},
    {"hardware stack error", kHardware},
    {"GPU has fallen off the bus", kHardware},
    {"GPU is lost", kHardware},
    {"unknown error", kHardware},
    {"CUDA out of memory", kMemory},
    {"CUDA error: out of memory", kMemory},
    {"illegal memory access", kProgram},
    {"misaligned address", kProgram},
    {"illegal instruction", kProgram},
    {"device-side assert", kProgram},
    {"unspecified launch failure", kProgram},
    {"invalid configuration argument", kProgram},
    {"NCCL error: unhandled system error", kNetwork},
    {"NCCL error: remote process exited", kNetwork},
    {"driver version is insufficient", kDriver},
    {"no CUDA-capable device", kDriver},
}};

}  // namespace

std::string explain_gpu_error(std::string_view text) {
  if (text.find("CUDA") == text.npos && text.find("NCCL") == text.npos &&
      text.find("GPU") == text.npos)
    return "";
  for (const Meaning& entry : kMeanings)
    if (text.find(entry.text) != text.npos) return entry.meaning;
  return "";
}

}  // namespace cosmos::trainer
