#include "trainer/parallel/partial_attention.h"
#include "trainer/parallel/token_ring.h"

namespace cosmos::trainer {
namespace {

/// A block that travels around the ring: while this rank computes on it, the next one arrives.
class Travelling {
 public:
  Travelling(TokenRing& ring, Tensor mine) : ring_(ring), here_(std::move(mine)) {}

  const Tensor& here() const { return here_; }

  /// Begins to pass `x` on and to receive what the rank before passes on; both of x's shape.
  void depart(const Tensor& x) {
    const Group& group = *ring_.group;
    const int64_t next = (group.rank() + 1) % group.size();
    const int64_t last = (group.rank() + group.size() - 1) % group.size();
    leaving_ = x;
    coming_ = torch::empty_like(x);
    pending_ = group.exchange({{leaving_, next}}, {{coming_, last}});
    ring_.count(static_cast<int64_t>(coming_.nbytes()));
  }
  void arrive() {
    pending_.wait();
    leaving_.reset();
    here_ = std::move(coming_);
    coming_ = Tensor();
  }

 private:
  TokenRing& ring_;
  Tensor here_, leaving_, coming_;
  Pending pending_;
};

/// [2, B, H, S, d] of [B, H, S, d] twice
Tensor packed(const Tensor& k, const Tensor& v) {
  return torch::stack({k, v}).contiguous();
}

torch::Dtype sum_dtype(const Tensor& x) {
  return x.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
}

}  // namespace

struct RingAttention : torch::autograd::Function<RingAttention> {
  /// q, k, v: [B, H, L, d]
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const c10::intrusive_ptr<RingHandle>& handle) {
    remember(ctx, handle);
    const int64_t ranks = handle->ring->group->size();
    Travelling kv(*handle->ring, packed(k, v));
    PartialAttention all;
    for (int64_t step = 0; step < ranks; ++step) {
      const bool more = step + 1 < ranks;
      if (more) kv.depart(kv.here());
      const PartialAttention part = partial_attention(q, kv.here()[0], kv.here()[1]);
      if (step == 0)
        all = {.out = part.out.to(sum_dtype(q)), .lse = part.lse};
      else
        add_part(all, part);
      if (more) kv.arrive();
    }
    all.out = all.out.to(q.scalar_type());
    ctx->save_for_backward({q, k, v, all.out, all.lse});
    return all.out;
  }

  /// Keys and values travel again, and behind them the sums of their gradients, which need one
  /// journey more to be home.
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2];
    const PartialAttention all{.out = saved[3], .lse = saved[4]};
    TokenRing& ring = recall(ctx);
    const int64_t ranks = ring.group->size();
    Travelling kv(ring, packed(k, v));
    const auto wide = kv.here().options().dtype(sum_dtype(q));
    Travelling sums(ring, torch::zeros(kv.here().sizes(), wide));
    Tensor dq = torch::zeros(q.sizes(), wide);
    const Tensor grad = grads[0].contiguous();
    for (int64_t step = 0; step < ranks; ++step) {
      const bool more = step + 1 < ranks;
      if (more) kv.depart(kv.here());
      const PartialGradients part =
          partial_attention_backward(grad, q, kv.here()[0], kv.here()[1], all);
      dq.add_(part.q);
      if (step > 0) sums.arrive();
      sums.depart(sums.here() + torch::stack({part.k, part.v}));
      if (more) kv.arrive();
    }
    sums.arrive();
    const auto own = q.scalar_type();
    return {dq.to(own), sums.here()[0].to(own), sums.here()[1].to(own), Tensor()};
  }
};

Tensor ring_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                      const std::shared_ptr<TokenRing>& ring) {
  return RingAttention::apply(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
                              c10::make_intrusive<RingHandle>(ring))
      .transpose(1, 2);
}

}  // namespace cosmos::trainer
