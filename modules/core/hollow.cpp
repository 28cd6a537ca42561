#include "modules/core/hollow.h"

namespace cosmos::modules {
namespace {

thread_local int hollow_depth = 0;

}  // namespace

Tensor hollow(at::IntArrayRef sizes, const at::TensorOptions& options) {
  const Tensor x = torch::empty({0}, options.requires_grad(std::nullopt));
  x.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  return x;
}

bool is_hollow(const Tensor& x) {
  return x.numel() > 0 && x.storage().nbytes() == 0;
}

HollowInit::HollowInit() {
  ++hollow_depth;
}
HollowInit::~HollowInit() {
  --hollow_depth;
}

Tensor new_parameter(at::IntArrayRef sizes) {
  return hollow_depth > 0 ? hollow(sizes, torch::kFloat32) : torch::empty(sizes, torch::kFloat32);
}

}  // namespace cosmos::modules
