#pragma once

// Context parallelism: the tokens of every frame are split evenly over the ranks of a group, and
// attention looks at those of all. Between attentions a rank computes on its own tokens alone.
//
// Of H heads of width d, with L tokens of its own, c ranks (E = B L H d), a rank receives per layer
//
//   kind        forward          backward         what it asks
//   ring        2 E (c - 1)      2 E (2 c - 1)    nothing; keys and values travel while it computes
//   all_to_all  4 E (c - 1) / c  4 E (c - 1) / c  c divides the heads
//   all_gather  2 E (c - 1)      4 E (c - 1)      memory for all keys and values of a layer
//
// numbers, and once a forward the model's output from the others. Sources: Liu et al., Ring
// Attention (2023); Jacobs et al., DeepSpeed Ulysses (2023).

#include <atomic>
#include <memory>
#include <string>

#include "modules/core/token_plan.h"
#include "trainer/parallel/group.h"

namespace cosmos::trainer {

/// The group over which a sample's tokens are split, and what this rank received in it so far.
struct TokenRing {
  const Group* group;
  std::atomic<int64_t> received{0};  ///< bytes from other ranks

  void count(int64_t bytes) { received += bytes; }
};

enum class ContextAttention { kAuto, kRing, kAllToAll, kAllGather };

/// "auto", "ring", "all_to_all", "all_gather".
ContextAttention context_attention(const std::string& name);
/// kAuto by what fits: all_to_all, which moves least, when `ranks` divide the heads, else ring.
ContextAttention choose_attention(ContextAttention wanted, int64_t heads, int64_t ranks);

class ContextPlan : public modules::TokenPlan {
 public:
  /// `group` outlives the plan and what was computed with it.
  ContextPlan(const Group& group, ContextAttention attention);

  /// Throws Error when the ranks do not divide the tokens.
  Tensor scatter(const Tensor& x, int64_t dim) const override;
  /// Of what all ranks then use alike: every rank's loss must be the same function of it.
  Tensor gather(const Tensor& x, int64_t dim) const override;
  Tensor scatter_positions(const Tensor& x, int64_t dim) const override { return scatter(x, dim); }
  Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v) const override;

  /// Bytes that this rank received so far.
  int64_t received_bytes() const { return ring_->received; }

 private:
  std::shared_ptr<TokenRing> ring_;
  ContextAttention attention_;
};

// Attention over all ranks' tokens.  q, k, v: [B, L, H, d] of this rank -> [B, L, H, d]

/// Saves q, k, v, the result and its log-sum-exp, all of this rank's tokens.
Tensor ring_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                      const std::shared_ptr<TokenRing>& ring);
/// Saves the same, and gathers keys and values again in backward.
Tensor all_gather_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                            const std::shared_ptr<TokenRing>& ring);
/// Throws Error when the ranks do not divide the heads.
Tensor all_to_all_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                            const std::shared_ptr<TokenRing>& ring);

/// What a model's tokens exchange, for --plan and the tests: of one sample.
struct TokenShape {
  int64_t layers = 0;  ///< with attention over all tokens; 0: unknown
  int64_t heads = 0, head_dim = 0;
  int64_t output = 0;  ///< numbers that the head makes of a token
};
/// Bytes that a rank receives for one sample of `tokens` tokens, forward and backward.
/// `recompute`: the fraction of layers whose forward runs twice.
double context_traffic(const TokenShape& shape, ContextAttention attention, double tokens,
                       int64_t ranks, double recompute, double element_bytes);

}  // namespace cosmos::trainer
