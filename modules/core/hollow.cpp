#include "modules/core/hollow.h"

namespace cosmos::modules {

Tensor hollow(at::IntArrayRef sizes, const at::TensorOptions& options) {
  const Tensor x = torch::empty({0}, options.requires_grad(std::nullopt));
  x.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  return x;
}

bool is_hollow(const Tensor& x) {
  return x.numel() > 0 && x.storage().nbytes() == 0;
}

void make_hollow(torch::nn::Module& module) {
  const torch::NoGradGuard no_grad;
  for (Tensor& parameter : module.parameters())
    parameter.set_data(hollow(parameter.sizes(), parameter.options()));
}

}  // namespace cosmos::modules
