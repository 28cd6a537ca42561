#include "modules/core/token_plan.h"

namespace cosmos::modules {

Tensor dense_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask) {
  return torch::scaled_dot_product_attention(
             q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
             mask.defined() ? std::optional<Tensor>(mask) : std::nullopt)
      .transpose(1, 2);
}

Tensor TokenPlan::attend(const Tensor& q, const Tensor& k, const Tensor& v) const {
  return dense_attention(q, k, v);
}

}  // namespace cosmos::modules
