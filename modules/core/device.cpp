#include "modules/core/device.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <torch/cuda.h>

namespace cosmos::modules {

torch::Device choose_device(const std::string& setting, const std::string& where,
                            int64_t local_rank) {
  if (setting == "cpu") return torch::kCPU;
  const int64_t gpus = torch::cuda::device_count();
  if (setting == "auto" && gpus == 0) return torch::kCPU;
  int64_t number = local_rank;
  if (setting.rfind("cuda:", 0) == 0 && setting.size() > 5 && setting.size() < 9 &&
      setting.find_first_not_of("0123456789", 5) == std::string::npos)
    number = std::stoll(setting.substr(5));
  else
    require(setting == "auto" || setting == "cuda", where,
            ": expected auto, cpu, cuda or cuda:N, got \"", setting, "\"");
  require(gpus > 0, where, ": \"", setting, "\", but there is no GPU here, or this build has no ",
          "CUDA (cmake --preset cuda); use cpu or auto");
  require(number < gpus, where, ": GPU ", number, " is wanted, this machine shows ", gpus,
          number == local_rank ? "; start as many ranks as there are GPUs" : "");
  return {torch::kCUDA, static_cast<c10::DeviceIndex>(number)};
}

int64_t peak_device_bytes(torch::Device device) {
  if (device.is_cpu()) return 0;
  constexpr auto kAll = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return c10::getDeviceAllocator(device.type())
      ->getDeviceStats(device.index())
      .allocated_bytes[kAll]
      .peak;
}

Tensor to_device(const Tensor& x, torch::Device device) {
  if (!device.is_cuda() || !x.device().is_cpu()) return x.to(device);
  return x.pin_memory().to(device, /*non_blocking=*/true);
}

}  // namespace cosmos::modules
