#include "modules/vlm/reason_embeddings.h"

namespace cosmos::modules {
namespace {

Tensor normalize(const Tensor& x) {
  const Tensor centered = x - x.mean(-1, /*keepdim=*/true);
  return centered / (x.std(-1, /*unbiased=*/true, /*keepdim=*/true) + 1e-8);
}

}  // namespace

Tensor reason_embeddings(LanguageModel& model, const Tensor& input_ids) {
  const torch::NoGradGuard no_grad;
  Tensors states;
  model.forward({.input_ids = input_ids}, /*cache=*/nullptr, &states);
  Tensors parts;
  for (std::size_t i = 1; i < states.size(); ++i) parts.push_back(normalize(states[i]));
  return torch::cat(parts, -1);
}

}  // namespace cosmos::modules
