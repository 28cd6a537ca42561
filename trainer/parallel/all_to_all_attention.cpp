// Between two exchanges a rank has all tokens and a part of the heads, and attention is what it is
// on one process.

#include "modules/core/token_plan.h"
#include "trainer/parallel/token_ring.h"

namespace cosmos::trainer {

/// [c, n...]: part r goes to rank r. Its own adjoint.
struct AllToAll : torch::autograd::Function<AllToAll> {
  static Tensor exchange(TokenRing& ring, const Tensor& x) {
    const Tensor in = x.contiguous();
    const Tensor out = torch::empty_like(in);
    ring.group->all_to_all(in, out).wait();
    ring.count(static_cast<int64_t>(in.nbytes() - in[0].nbytes()));
    return out;
  }
  static Tensor forward(AutogradContext* ctx, const Tensor& x,
                        const c10::intrusive_ptr<RingHandle>& handle) {
    remember(ctx, handle);
    return exchange(*handle->ring, x);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {exchange(recall(ctx), grads[0]), Tensor()};
  }
};

Tensor all_to_all_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                            const std::shared_ptr<TokenRing>& ring) {
  const int64_t ranks = ring->group->size();
  require(q.size(2) % ranks == 0 && k.size(2) % ranks == 0,
          "trainer.parallel.context_attention: all_to_all: expected heads that ", ranks,
          " ranks divide, got ", q.size(2), " of queries and ", k.size(2),
          " of keys; use ring, or fewer ranks");
  const auto exchange = [&](const Tensor& x) {
    return AllToAll::apply(x, c10::make_intrusive<RingHandle>(ring));
  };
  // One message: for each rank its heads of q, k and v.  [B, L, c, 3 heads, d]
  const auto by_rank = [&](const Tensor& x) { return x.unflatten(2, {ranks, -1}); };
  const Tensor mine = torch::cat({by_rank(q), by_rank(k), by_rank(v)}, 3);
  const Tensor whole = exchange(mine.movedim(2, 0)).movedim(0, 1).flatten(1, 2);
  const int64_t heads = q.size(2) / ranks, kv_heads = k.size(2) / ranks;
  const Tensors parts = whole.split_with_sizes({heads, kv_heads, kv_heads}, 2);
  const Tensor out = modules::dense_attention(parts[0], parts[1], parts[2]);  // [B, c L, heads, d]
  // Tokens home to their ranks, heads of all ranks side by side.
  const Tensor home = exchange(out.unflatten(1, {ranks, -1}).movedim(1, 0));  // [c, B, L, heads, d]
  return home.movedim(0, 2).flatten(2, 3);
}

}  // namespace cosmos::trainer
