#pragma once

// Which tokens of a sample this process holds: all of them, unless the trainer installs a plan that
// splits them over ranks (context and sequence parallelism). The model scatters its tokens once,
// gathers what it computed once, and asks the plan for attention over all tokens; in between, code
// that treats tokens alike does not know.
//
// Every operation is the exact adjoint of itself in backward, taking the sum of all ranks' losses
// as the objective. So the gradient of a weight is its sum over the ranks that hold it, over the
// number of losses: the same rule for stems, split blocks and heads.

#include "modules/core/tensor.h"

namespace cosmos::modules {

class TokenPlan {
 public:
  virtual ~TokenPlan() = default;

  /// This rank's part of what stands beside the hidden states: tokens, or what is added to them.
  /// `dim` is the dimension of the tokens, which every rank has whole.
  virtual Tensor scatter(const Tensor& x, int64_t dim) const { return x; }
  /// The parts of all ranks; the inverse of scatter.
  virtual Tensor gather(const Tensor& x, int64_t dim) const { return x; }
  /// This rank's part of what stands beside queries and keys (rotary tables). Within an attention
  /// a rank may hold more tokens than between the products, with fewer heads.
  virtual Tensor scatter_positions(const Tensor& x, int64_t dim) const { return x; }
  /// softmax(q kᵀ / sqrt(d)) v of this rank's queries over the keys of all ranks.
  /// q, k, v: [B, L, heads, d] -> [B, L, heads, d]
  virtual Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v) const;
};

/// softmax(q kᵀ / sqrt(d)) v on one rank.  q: [B, L, heads, d], k, v: [B, S, heads, d]; mask:
/// undefined, or [B, 1, 1, S], bool (true = attend) or added to the scores -> [B, L, heads, d]
Tensor dense_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask = {});

}  // namespace cosmos::modules
