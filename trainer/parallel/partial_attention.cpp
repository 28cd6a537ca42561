#include "trainer/parallel/partial_attention.h"

#include <ATen/ops/_scaled_dot_product_flash_attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_backward.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <cmath>

namespace cosmos::trainer {
namespace {

double scale_of(const Tensor& q) {
  return 1 / std::sqrt(static_cast<double>(q.size(-1)));
}

torch::Dtype wide_dtype(const Tensor& x) {
  return x.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
}

/// CUDA's flash kernel takes half precisions and head widths that 8 divides.
bool flash_on_cuda(const Tensor& q) {
  return q.is_cuda() &&
         (q.scalar_type() == torch::kBFloat16 || q.scalar_type() == torch::kFloat16) &&
         q.size(-1) % 8 == 0 && q.size(-1) <= 256;
}

Tensor scores(const Tensor& q, const Tensor& k) {
  return torch::matmul(q, k.transpose(-2, -1)) * scale_of(q);
}

}  // namespace

PartialAttention plain_partial_attention(const Tensor& q, const Tensor& k, const Tensor& v) {
  const torch::Dtype wide = wide_dtype(q);
  const Tensor s = scores(q.to(wide), k.to(wide));
  return {.out = torch::matmul(torch::softmax(s, -1), v.to(wide)).to(q.scalar_type()),
          .lse = torch::logsumexp(s, {-1})};
}

PartialGradients plain_partial_attention_backward(const Tensor& grad, const Tensor& q,
                                                  const Tensor& k, const Tensor& v,
                                                  const PartialAttention& all) {
  const torch::Dtype wide = wide_dtype(q), own = q.scalar_type();
  const Tensor wide_q = q.to(wide), wide_k = k.to(wide), wide_grad = grad.to(wide);
  const Tensor weights = torch::exp(scores(wide_q, wide_k) - all.lse.unsqueeze(-1));
  const Tensor along = (wide_grad * all.out.to(wide)).sum(-1, /*keepdim=*/true);
  const Tensor ds =
      weights * (torch::matmul(wide_grad, v.to(wide).transpose(-2, -1)) - along) * scale_of(q);
  return {.q = torch::matmul(ds, wide_k).to(own),
          .k = torch::matmul(ds.transpose(-2, -1), wide_q).to(own),
          .v = torch::matmul(weights.transpose(-2, -1), wide_grad).to(own)};
}

PartialAttention partial_attention(const Tensor& q, const Tensor& k, const Tensor& v) {
  if (q.is_cpu()) {
    const auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
        q, k, v, /*dropout_p=*/0, /*is_causal=*/false, /*attn_mask=*/{}, scale_of(q));
    return {.out = out, .lse = lse};
  }
  if (!flash_on_cuda(q)) return plain_partial_attention(q, k, v);
  const auto result = at::_scaled_dot_product_flash_attention(
      q, k, v, /*dropout_p=*/0, /*is_causal=*/false, /*return_debug_mask=*/false, scale_of(q));
  return {.out = std::get<0>(result), .lse = std::get<1>(result)};
}

void add_part(PartialAttention& all, const PartialAttention& part) {
  // The new keys' share of all weights is sigmoid(their lse - the others').
  const Tensor share = torch::sigmoid(part.lse - all.lse).unsqueeze(-1);
  all.out.lerp_(part.out.to(all.out.scalar_type()), share);
  all.lse = torch::logaddexp(all.lse, part.lse);
}

PartialGradients partial_attention_backward(const Tensor& grad, const Tensor& q, const Tensor& k,
                                            const Tensor& v, const PartialAttention& all) {
  if (q.is_cpu()) {
    const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        grad, q, k, v, all.out, all.lse, /*dropout_p=*/0, /*is_causal=*/false, /*attn_mask=*/{},
        scale_of(q));
    return {.q = dq, .k = dk, .v = dv};
  }
  if (!flash_on_cuda(q)) return plain_partial_attention_backward(grad, q, k, v, all);
  const Tensor none = torch::empty({0}, q.options().dtype(torch::kInt64));
  const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_backward(
      grad, q, k, v, all.out, all.lse, /*cum_seq_q=*/{}, /*cum_seq_k=*/{}, q.size(2), k.size(2),
      /*dropout_p=*/0, /*is_causal=*/false, none, none, scale_of(q));
  return {.q = dq, .k = dk, .v = dv};
}

}  // namespace cosmos::trainer
