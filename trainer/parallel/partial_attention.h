#pragma once

// Attention of queries over a part of the keys, in a form that can be put together with the other
// parts: the result and the log-sum-exp of its scores (Dao et al., FlashAttention, 2022).
//
// B samples, H heads, L queries, S keys, d width of a head. float64, float32, bfloat16, float16.
// ATen's fused kernels where they give the log-sum-exp (all CPU dtypes; CUDA's half precisions),
// otherwise the formula, which makes [L, S] scores.

#include "modules/core/tensor.h"

namespace cosmos::trainer {

/// out: [B, H, L, d]; lse: [B, H, L], float64 for float64, else float32.
struct PartialAttention {
  Tensor out, lse;
};

/// out = softmax(q kᵀ / sqrt(d)) v, lse = log sum exp(q kᵀ / sqrt(d)).
/// q: [B, H, L, d], k, v: [B, H, S, d]
PartialAttention partial_attention(const Tensor& q, const Tensor& k, const Tensor& v);

/// The same over the keys of both: out and lse of `all` change in place. Its out has lse's dtype.
void add_part(PartialAttention& all, const PartialAttention& part);

/// Gradients of q, k, v that come of these keys alone, given the result over all keys: since each
/// weight is exp(score - lse), the parts' gradients of q are summed, those of k and v are whole.
struct PartialGradients {
  Tensor q, k, v;
};
PartialGradients partial_attention_backward(const Tensor& grad, const Tensor& q, const Tensor& k,
                                            const Tensor& v, const PartialAttention& all);

/// By the formula, on any device: what the fused kernels are held against.
PartialAttention plain_partial_attention(const Tensor& q, const Tensor& k, const Tensor& v);
PartialGradients plain_partial_attention_backward(const Tensor& grad, const Tensor& q,
                                                  const Tensor& k, const Tensor& v,
                                                  const PartialAttention& all);

}  // namespace cosmos::trainer
