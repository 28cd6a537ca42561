// Neighborhood attention of attention.h: gathers the tiles of a group into one batch and hands it
// to scaled_dot_product_attention.

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros.h>
#include <algorithm>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/attention/attention.h"
#include "ops/core/check.h"
#include "ops/core/path.h"

namespace cosmos::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Group = NeighborhoodPlan::Group;
using Scale = std::optional<double>;

/// Elements of keys that are gathered at a time; bounds the memory of a call.
constexpr int64_t kGathered = int64_t{1} << 24;

/// Calls fn(group of the same form with a bounded number of tiles) for all tiles of the plan.
template <typename Fn>
void for_each_batch(const NeighborhoodPlan& plan, const Tensor& k, Fn fn) {
  const int64_t token = k.size(0) * k.size(2) * k.size(3);
  if (token == 0) return;
  for (const Group& g : plan.groups()) {
    const int64_t tiles = g.queries.size(0);
    const int64_t step = std::max<int64_t>(1, kGathered / (token * g.keys.size(1)));
    for (int64_t begin = 0; begin < tiles; begin += step) {
      const int64_t count = std::min(step, tiles - begin);
      fn(Group{g.queries.narrow(0, begin, count), g.keys.narrow(0, begin, count), g.mask});
    }
  }
}

/// x [B, N, heads, d] at tokens [tiles, n]: [B * tiles, heads, n, d].
Tensor gather(const Tensor& x, const Tensor& tokens) {
  const Tensor rows = x.index_select(1, tokens.flatten());
  return rows.view({x.size(0) * tokens.size(0), tokens.size(1), x.size(2), x.size(3)})
      .transpose(1, 2);
}

/// Inverse of gather: [B, tiles * n, heads, d].
Tensor as_rows(const Tensor& x, int64_t batch) {
  return x.transpose(1, 2).reshape({batch, -1, x.size(1), x.size(3)});
}

Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask, Scale scale) {
  return at::scaled_dot_product_attention(q, k, v,
                                          mask.defined() ? std::optional(mask) : std::nullopt, 0.0,
                                          false, scale, /*enable_gqa=*/q.size(1) != k.size(1));
}

Tensor forward_tiles(const Tensor& q, const Tensor& k, const Tensor& v,
                     const NeighborhoodPlan& plan, Scale scale) {
  const Tensor out = at::empty_like(q, q.options(), at::MemoryFormat::Contiguous);
  for_each_batch(plan, k, [&](const Group& g) {
    const Tensor tile =
        attend(gather(q, g.queries), gather(k, g.keys), gather(v, g.keys), g.mask, scale);
    out.index_copy_(1, g.queries.flatten(), as_rows(tile, q.size(0)));
  });
  return out;
}

struct NeighborhoodFunction : torch::autograd::Function<NeighborhoodFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const NeighborhoodPlan& plan, Scale scale) {
    const at::NoGradGuard no_grad;
    ctx->save_for_backward({q, k, v});
    ctx->saved_data["scale"] = scale;
    // Copies share the index tensors.
    ctx->saved_data["plan"] = c10::IValue::make_capsule(c10::make_intrusive<PlanHolder>(plan));
    return forward_tiles(q, k, v, plan, scale);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward("neighborhood_attention");
    const auto saved = ctx->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2];
    const auto capsule = ctx->saved_data["plan"].toCapsule();
    const NeighborhoodPlan& plan = static_cast<const PlanHolder&>(*capsule).plan;
    const Scale scale = ctx->saved_data["scale"].toOptional<double>();
    const Tensor grad_q = at::empty_like(q, q.options(), at::MemoryFormat::Contiguous);
    // A key belongs to several tiles: their shares are added in the wide type.
    const auto wide = k.options().dtype(accumulate_dtype(k));
    const Tensor grad_k = at::zeros(k.sizes(), wide), grad_v = at::zeros(v.sizes(), wide);
    for_each_batch(plan, k, [&](const Group& g) {
      const variable_list leaves = {gather(q, g.queries).detach().requires_grad_(),
                                    gather(k, g.keys).detach().requires_grad_(),
                                    gather(v, g.keys).detach().requires_grad_()};
      Tensor out;
      {
        const at::AutoGradMode enable(true);
        out = attend(leaves[0], leaves[1], leaves[2], g.mask, scale);
      }
      const auto d = torch::autograd::grad({out}, leaves, {gather(grads[0], g.queries)});
      grad_q.index_copy_(1, g.queries.flatten(), as_rows(d[0], q.size(0)));
      grad_k.index_add_(1, g.keys.flatten(), as_rows(d[1], q.size(0)).to(grad_k.scalar_type()));
      grad_v.index_add_(1, g.keys.flatten(), as_rows(d[2], q.size(0)).to(grad_v.scalar_type()));
    });
    return {grad_q, grad_k.to(k.scalar_type()), grad_v.to(v.scalar_type()), Tensor(), Tensor()};
  }

 private:
  struct PlanHolder : torch::CustomClassHolder {
    explicit PlanHolder(NeighborhoodPlan p) : plan(std::move(p)) {}
    NeighborhoodPlan plan;
  };
};

void check_arguments(const Tensor& q, const Tensor& k, const Tensor& v,
                     const NeighborhoodPlan& plan) {
  dtype_of("neighborhood_attention", "q", q);
  check_alike("neighborhood_attention", "q", q, "k", k);
  check_same("neighborhood_attention", "k", k, "v", v);
  require(
      q.dim() == 4 && k.dim() == 4 && q.size(0) == k.size(0) && q.size(3) == k.size(3) &&
          k.size(2) > 0 && q.size(2) % k.size(2) == 0,
      "neighborhood_attention: expected q [B, N, heads, d] and k, v [B, N, kv_heads, d], heads ",
      "a multiple of kv_heads, got ", describe(q), " and ", describe(k));
  require(q.size(1) == plan.tokens() && k.size(1) == plan.tokens(),
          "neighborhood_attention: expected ", plan.tokens(), " tokens as the plan, got ",
          q.size(1), " queries and ", k.size(1), " keys");
  require(q.device() == plan.device(), "neighborhood_attention: the plan was made for ",
          plan.device(), ", q is on ", q.device());
}

}  // namespace

Tensor neighborhood_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                              const NeighborhoodPlan& plan, Scale scale) {
  check_arguments(q, k, v, plan);
  if (path() == Path::kReference)
    return reference::neighborhood_attention(q, k, v, plan.axes(), scale);
  return NeighborhoodFunction::apply(q, k, v, plan, scale);
}

namespace {

/// From Python: the plan is made anew for each call.
Tensor neighborhood_attention_schema(const Tensor& q, const Tensor& k, const Tensor& v,
                                     at::IntArrayRef grid, at::IntArrayRef window,
                                     at::IntArrayRef stride, at::IntArrayRef dilation,
                                     std::array<bool, 3> causal, Scale scale) {
  std::array<NeighborhoodAxis, 3> axes;
  for (int i = 0; i < 3; ++i) axes[i] = {grid[i], window[i], stride[i], dilation[i], causal[i]};
  return neighborhood_attention(q, k, v, NeighborhoodPlan(axes, q.device()), scale);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def(
      "neighborhood_attention(Tensor q, Tensor k, Tensor v, int[3] grid, int[3] window, "
      "int[3] stride=1, int[3] dilation=1, bool[3] causal=[False, False, False], "
      "float? scale=None) -> Tensor",
      neighborhood_attention_schema);
}

}  // namespace cosmos::ops
