#include "modules/lora/stack_adapter.h"

#include "modules/core/init.h"
#include "modules/lora/adapter.h"

namespace cosmos::modules {

StackLora::StackLora(const Tensor& weight, const Options& options, uint64_t seed)
    : options_(options) {
  auto [experts, out, in] = dims<3>(weight, "stacked weight");
  const auto like = weight.options().requires_grad(false);
  lora_A = register_parameter("lora_A", torch::empty({experts * options.rank, in}, like));
  lora_B = register_parameter("lora_B", torch::empty({out, options.rank * experts}, like));
  if (SkipInit::active()) return;
  const torch::NoGradGuard no_grad;
  draw_lora_A(lora_A, seed, options.layer);
  lora_B.zero_();
}

Tensor StackLora::stacked_A() const {
  return lora_A.view({-1, options_.rank, lora_A.size(1)});
}

Tensor StackLora::stacked_B() const {
  return lora_B.view({lora_B.size(0), options_.rank, -1}).permute({2, 0, 1});
}

Tensors StackLora::adapt(const Tensors& x, const Tensors& base, const std::vector<int64_t>& index) {
  const Tensors A = stacked_A().unbind(0), B = stacked_B().unbind(0);
  Tensors out;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const Tensor input = x[i].to(lora_A.scalar_type());
    const Tensor update = torch::linear(torch::linear(input, A[index[i]]), B[index[i]]);
    out.push_back(base[i] + (update * options_.scaling).to(base[i].scalar_type()));
  }
  return out;
}

Tensor StackLora::delta() const {
  const torch::NoGradGuard no_grad;
  return torch::bmm(stacked_B().to(torch::kFloat32), stacked_A().to(torch::kFloat32)) *
         options_.scaling;
}

}  // namespace cosmos::modules
