#include "modules/vlm/moe.h"

#include "modules/core/hollow.h"
#include "modules/core/init.h"
#include "ops/activation/activation.h"

namespace cosmos::modules {

ExpertsImpl::ExpertsImpl(int64_t experts, int64_t dim, int64_t inner_dim) {
  gate_up_proj = register_stack("gate_up_proj", new_parameter({experts, 2 * inner_dim, dim}));
  down_proj = register_stack("down_proj", new_parameter({experts, dim, inner_dim}));
  if (SkipInit::active()) return;
  truncated_normal_(gate_up_proj.detach(), 0.02);
  truncated_normal_(down_proj.detach(), 0.02);
}

Tensor ExpertsImpl::forward(const Tensor& x, const std::vector<int64_t>& counts) {
  require(static_cast<int64_t>(counts.size()) == gate_up_proj.size(0), "experts: expected ",
          gate_up_proj.size(0), " counts, got ", counts.size());
  const Tensors parts = x.split_with_sizes(counts);
  Tensors inputs;
  std::vector<int64_t> used;
  for (std::size_t e = 0; e < parts.size(); ++e) {
    if (counts[e] == 0) continue;
    inputs.push_back(parts[e]);
    used.push_back(static_cast<int64_t>(e));
  }
  if (inputs.empty()) return x.mul(0);
  Tensors hidden = products(0, inputs, used);
  for (Tensor& h : hidden) {
    const int64_t inner = h.size(1) / 2;
    h = ops::swiglu(h.narrow(1, 0, inner), h.narrow(1, inner, inner));
  }
  return torch::cat(products(1, hidden, used));
}

SparseMoeBlockImpl::SparseMoeBlockImpl(const MoeOptions& options) : options_(options) {
  gate_ = register_module("gate", Linear(options.dim, options.experts, /*bias=*/false));
  experts_ = register_module("experts", Experts(options.experts, options.dim, options.inner_dim));
}

Routing SparseMoeBlockImpl::route(const Tensor& x) {
  const Tensor logits = gate_(x).flatten(0, -2);
  const auto wide = logits.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
  auto [weight, index] = torch::softmax(logits, -1, wide).topk(options_.experts_per_token, -1);
  if (options_.normalize) weight = weight / weight.sum(-1, /*keepdim=*/true);
  return {.index = index, .weight = weight.to(logits.scalar_type())};
}

Tensor SparseMoeBlockImpl::forward(const Tensor& input) {
  const Tensor x = input.reshape({-1, input.size(-1)});
  const Routing routing = route(input);
  // Slot n k + j is token n at its j-th expert; slots in the order of their experts.
  const Tensor flat = routing.index.flatten();
  const Tensor order = flat.argsort(/*stable=*/true, 0, /*descending=*/false);
  const Tensor token = order.floor_divide(options_.experts_per_token);
  const Tensor counts = flat.bincount({}, options_.experts).cpu();
  const auto* begin = counts.data_ptr<int64_t>();
  const std::vector<int64_t> sizes(begin, begin + counts.numel());

  const Tensor sorted = x.index_select(0, token);
  const Tensor out =
      dispatch_ ? dispatch_->run(sorted, sizes, *experts_) : experts_->forward(sorted, sizes);
  const Tensor weighted = out * routing.weight.flatten().index_select(0, order).unsqueeze(1);
  return torch::zeros_like(x).index_add(0, token, weighted).view(input.sizes());
}

}  // namespace cosmos::modules
