#include "trainer/parallel/partial_attention.h"
#include "trainer/parallel/token_ring.h"

namespace cosmos::trainer {
namespace {

/// Keys and values of all ranks: [2, B, H, c L, d] of [B, H, L, d] twice.
Tensor gather_kv(TokenRing& ring, const Tensor& k, const Tensor& v) {
  const Tensor mine = torch::stack({k, v}).contiguous();
  std::vector<int64_t> sizes = mine.sizes().vec();
  sizes.insert(sizes.begin(), ring.group->size());
  const Tensor all = torch::empty(sizes, mine.options());  // [c, 2, B, H, L, d]
  ring.group->all_gather(mine, all).wait();
  ring.count(static_cast<int64_t>(all.nbytes() - mine.nbytes()));
  return all.movedim(0, 3).flatten(3, 4);
}

}  // namespace

struct AllGatherAttention : torch::autograd::Function<AllGatherAttention> {
  /// q, k, v: [B, H, L, d]
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const c10::intrusive_ptr<RingHandle>& handle) {
    remember(ctx, handle);
    const Tensor kv = gather_kv(*handle->ring, k, v);
    const PartialAttention all = partial_attention(q, kv[0], kv[1]);
    ctx->save_for_backward({q, k, v, all.out, all.lse});
    return all.out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor& q = saved[0];
    TokenRing& ring = recall(ctx);
    const Tensor kv = gather_kv(ring, saved[1], saved[2]);
    const PartialGradients part = partial_attention_backward(grads[0].contiguous(), q, kv[0], kv[1],
                                                             {.out = saved[3], .lse = saved[4]});
    // Every rank has a share of every key's gradient.
    const Tensor shares = torch::stack({part.k, part.v})  // [2, B, H, c L, d]
                              .unflatten(3, {ring.group->size(), -1})
                              .movedim(3, 0)
                              .contiguous();
    const Tensor mine = torch::empty_like(shares[0]);
    ring.group->reduce_scatter(shares, mine).wait();
    ring.count(static_cast<int64_t>(shares.nbytes() - mine.nbytes()));
    return {part.q, mine[0], mine[1], Tensor()};
  }
};

Tensor all_gather_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                            const std::shared_ptr<TokenRing>& ring) {
  return AllGatherAttention::apply(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
                                   c10::make_intrusive<RingHandle>(ring))
      .transpose(1, 2);
}

}  // namespace cosmos::trainer
