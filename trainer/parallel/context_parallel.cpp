#include "trainer/parallel/context_parallel.h"

#include <torch/csrc/autograd/custom_function.h>

#include "trainer/parallel/token_ring.h"

namespace cosmos::trainer {

/// The parts of all ranks along a dimension. Every rank goes on with the same values, and so comes
/// back with the same gradient: the sum over ranks of this rank's part is a product.
struct GatherTokens : torch::autograd::Function<GatherTokens> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, int64_t dim,
                        const c10::intrusive_ptr<RingHandle>& handle) {
    remember(ctx, handle);
    ctx->saved_data["dim"] = dim;
    TokenRing& ring = *handle->ring;
    const Tensor mine = x.contiguous();
    std::vector<int64_t> sizes = mine.sizes().vec();
    sizes.insert(sizes.begin(), ring.group->size());
    const Tensor all = torch::empty(sizes, mine.options());
    ring.group->all_gather(mine, all).wait();
    ring.count(static_cast<int64_t>(all.nbytes() - mine.nbytes()));
    return all.movedim(0, dim).flatten(dim, dim + 1);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const Group& group = *recall(ctx).group;
    const int64_t dim = ctx->saved_data["dim"].toInt();
    const int64_t part = grads[0].size(dim) / group.size();
    const Tensor mine = grads[0].narrow(dim, group.rank() * part, part);
    return {mine * static_cast<double>(group.size()), Tensor(), Tensor()};
  }
};

ContextAttention context_attention(const std::string& name) {
  if (name == "ring") return ContextAttention::kRing;
  if (name == "all_to_all") return ContextAttention::kAllToAll;
  if (name == "all_gather") return ContextAttention::kAllGather;
  require(name == "auto", "trainer.parallel.context_attention: no kind \"", name, "\"");
  return ContextAttention::kAuto;
}

ContextAttention choose_attention(ContextAttention wanted, int64_t heads, int64_t ranks) {
  if (wanted != ContextAttention::kAuto) return wanted;
  return heads % ranks == 0 ? ContextAttention::kAllToAll : ContextAttention::kRing;
}

ContextPlan::ContextPlan(const Group& group, ContextAttention attention)
    : ring_(std::make_shared<TokenRing>()), attention_(attention) {
  ring_->group = &group;
}

Tensor ContextPlan::scatter(const Tensor& x, int64_t dim) const {
  const int64_t ranks = ring_->group->size(), tokens = x.size(dim);
  require(tokens % ranks == 0, "trainer.parallel.context: expected a number of tokens per frame ",
          "that ", ranks, " ranks divide, got ", tokens, " (dimension ", dim, " of ", x.sizes(),
          "); choose another height and width, or fewer ranks");
  return x.narrow(dim, ring_->group->rank() * (tokens / ranks), tokens / ranks);
}

Tensor ContextPlan::gather(const Tensor& x, int64_t dim) const {
  return GatherTokens::apply(x, dim, c10::make_intrusive<RingHandle>(ring_));
}

Tensor ContextPlan::attend(const Tensor& q, const Tensor& k, const Tensor& v) const {
  switch (choose_attention(attention_, q.size(2), ring_->group->size())) {
    case ContextAttention::kAllToAll:
      return all_to_all_attention(q, k, v, ring_);
    case ContextAttention::kAllGather:
      return all_gather_attention(q, k, v, ring_);
    default:
      return ring_attention(q, k, v, ring_);
  }
}

double context_traffic(const TokenShape& shape, ContextAttention attention, double tokens,
                       int64_t ranks, double recompute, double element_bytes) {
  const auto c = static_cast<double>(ranks);
  const double own = tokens / c, e = own * static_cast<double>(shape.heads * shape.head_dim);
  double forward = 0, backward = 0;
  switch (choose_attention(attention, shape.heads, ranks)) {
    case ContextAttention::kAllToAll:
      forward = backward = 4 * e * (c - 1) / c * element_bytes;
      break;
    case ContextAttention::kAllGather:
      forward = 2 * e * (c - 1) * element_bytes;
      backward = 2 * forward;
      break;
    default: {
      // The gradients of keys and values are added up in float32 at least.
      const double wide_bytes = element_bytes < 4 ? 4 : element_bytes;
      forward = 2 * e * (c - 1) * element_bytes;
      backward = forward + 2 * e * c * wide_bytes;
    }
  }
  const double output = own * (c - 1) * static_cast<double>(shape.output) * element_bytes;
  return static_cast<double>(shape.layers) * (forward * (1 + recompute) + backward) + output;
}

}  // namespace cosmos::trainer
