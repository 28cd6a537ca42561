#include "trainer/parallel/model_collectives.h"

#include "trainer/parallel/linear_map.h"

namespace cosmos::trainer {

// The collective is waited for where its result is first needed; with a transport that runs beside
// the computation (NCCL) wait() only orders streams.

Tensor ModelCollectives::gather(const Tensor& x, int64_t dim) const {
  const Tensor mine = x.contiguous();
  std::vector<int64_t> sizes = mine.sizes().vec();
  sizes.insert(sizes.begin(), group_.size());
  const Tensor all = torch::empty(sizes, mine.options());
  Pending pending = group_.all_gather(mine, all);
  bytes_ += static_cast<int64_t>(all.nbytes());
  pending.wait();
  // Rank-major; for parts side by side the ranks go where `dim` is.
  return all.movedim(0, dim).flatten(dim, dim + 1);
}

Tensor ModelCollectives::scatter_sum(const Tensor& x, int64_t dim) const {
  const Tensor parts = x.unflatten(dim, {group_.size(), -1}).movedim(dim, 0).contiguous();
  const Tensor out = torch::empty(parts.sizes().slice(1), parts.options());
  Pending pending = group_.reduce_scatter(parts, out);
  bytes_ += static_cast<int64_t>(parts.nbytes());
  pending.wait();
  return out;
}

Tensor ModelCollectives::sum(const Tensor& x) const {
  const Tensor total = x.clone(at::MemoryFormat::Contiguous);
  Pending pending = group_.all_reduce(total);
  bytes_ += 2 * static_cast<int64_t>(total.nbytes());
  pending.wait();
  return total;
}

Tensor ModelCollectives::all_gather(const Tensor& x, int64_t dim) const {
  const int64_t d = at::maybe_wrap_dim(dim, x.dim());
  return apply_linear([this, d](const Tensor& y) { return gather(y, d); },
                      [this, d](const Tensor& y) { return scatter_sum(y, d); }, x);
}

Tensor ModelCollectives::reduce_scatter(const Tensor& x, int64_t dim) const {
  const int64_t d = at::maybe_wrap_dim(dim, x.dim());
  require(x.size(d) % group_.size() == 0, "group ", group_.name(), ": expected a multiple of ",
          group_.size(), " tokens, got ", x.size(d));
  return apply_linear([this, d](const Tensor& y) { return scatter_sum(y, d); },
                      [this, d](const Tensor& y) { return gather(y, d); }, x);
}

Tensor ModelCollectives::all_reduce(const Tensor& x) const {
  const auto total = [this](const Tensor& y) { return sum(y); };
  return apply_linear(total, total, x);
}

Tensor ModelCollectives::narrow(const Tensor& x, int64_t dim) const {
  require(x.size(dim) % group_.size() == 0, "group ", group_.name(), ": expected a multiple of ",
          group_.size(), " tokens, got ", x.size(dim));
  const int64_t part = x.size(dim) / group_.size();
  return x.narrow(dim, group_.rank() * part, part);
}

}  // namespace cosmos::trainer
