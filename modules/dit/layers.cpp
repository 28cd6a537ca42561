#include "modules/dit/layers.h"

#include "ops/activation/activation.h"

namespace cosmos::modules {

ModulationImpl::ModulationImpl(int64_t dim, int64_t rank, int64_t parts) : parts_(parts) {
  linear_1_ = register_module("linear_1", Linear(dim, rank, /*bias=*/false));
  linear_2_ = register_module("linear_2", Linear(rank, parts * dim, /*bias=*/false));
}

Modulated ModulationImpl::forward(const Tensor& silu_emb, const Tensor& temb) {
  const int64_t width = linear_2_->out_features();
  Tensor m = linear_2_(linear_1_(silu_emb)) + temb.narrow(-1, 0, width);
  auto chunks = m.chunk(parts_, -1);
  return {.shift = chunks[0], .scale = chunks[1], .gate = parts_ > 2 ? chunks[2] : Tensor()};
}

FeedForwardImpl::FeedForwardImpl(int64_t dim, int64_t inner_dim) {
  auto net = add_container(*this, "net");
  up_ = add_container(*net, "0")->register_module("proj", Linear(dim, inner_dim, /*bias=*/false));
  down_ = net->register_module("2", Linear(inner_dim, dim, /*bias=*/false));
}

Tensor FeedForwardImpl::forward(const Tensor& x) {
  return down_(ops::gelu(up_(x)));
}

ProjectionImpl::ProjectionImpl(int64_t in_dim, int64_t out_dim) {
  linear_ = register_module("0", Linear(in_dim, out_dim));
}

Tensor ProjectionImpl::forward(const Tensor& x) {
  return ops::gelu(linear_(x));
}

}  // namespace cosmos::modules
