#include "modules/hub/mapped_weights.h"

#include <c10/core/Allocator.h>
#include <set>
#include <string_view>

#include "modules/hub/mapped_file.h"
#include "modules/hub/model_weights.h"

namespace cosmos::modules {
namespace {

// The same bytes as a weight, counted while it lives as an allocation of its size would be.
Tensor stay(const Tensor& file) {
  void* const bytes = file.data_ptr();
  const auto size = static_cast<int64_t>(file.nbytes());
  const bool counted = c10::memoryProfilingEnabled();
  if (counted) c10::reportMemoryUsageToProfiler(bytes, size, 0, 0, torch::kCPU);
  const auto let_go = [mapping = file, bytes, size, counted](void*) {
    if (counted) c10::reportMemoryUsageToProfiler(bytes, -size, 0, 0, torch::kCPU);
  };
  return torch::from_blob(bytes, file.sizes(), let_go, file.options());
}

}  // namespace

void load_mapped(Model& model, const WeightFolder& folder, const LoadOptions& options) {
  const torch::NoGradGuard no_grad;
  std::set<const void*> taken;
  std::vector<std::string_view> staying;
  const auto take = [&](const BaseTensor& place, const Tensor& file) {
    Tensor weight = place.tensor;
    const torch::Dtype dtype = dtype_in(model, place.names.front(), weight, options.dtype);
    if (options.device.is_cpu() && file.scalar_type() == dtype && file.is_contiguous() &&
        folder.holds(file) && taken.insert(file.const_data_ptr()).second) {
      weight.set_data(stay(file));
      staying.emplace_back(static_cast<const char*>(file.const_data_ptr()), file.nbytes());
      return;
    }
    weight.set_data(
        torch::empty(weight.sizes(), torch::TensorOptions(dtype).device(options.device)));
    weight.copy_(file);
  };
  load_weights(model, model.from_file(folder.tensors()), folder.dir().string(), take);
  bring_in(staying, folder.dir().string());
}

}  // namespace cosmos::modules
