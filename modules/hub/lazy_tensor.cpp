#include "modules/hub/lazy_tensor.h"

namespace cosmos::modules {

LazyTensors lazy_tensors(const TensorMap& tensors) {
  LazyTensors lazy;
  for (const auto& [name, tensor] : tensors) {
    require(tensor.defined(), name, ": tensor is undefined");
    lazy[name] = {tensor.scalar_type(), tensor.sizes().vec(), [held = tensor] { return held; }};
  }
  return lazy;
}

}  // namespace cosmos::modules
