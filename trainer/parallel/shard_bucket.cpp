#include "trainer/parallel/shard_bucket.h"

#include <algorithm>
#include <c10/core/Allocator.h>

#include "modules/core/hollow.h"
#include "ops/shard_copy/shard_copy.h"
#include "trainer/parallel/shard_layout.h"

namespace cosmos::trainer {
namespace {

// Gradients are added up in float32, or float64 where the parameter is.
torch::Dtype wide_dtype(const Tensor& x) {
  return x.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
}

}  // namespace

void set_storage(const Tensor& x, std::size_t bytes) {
  c10::StorageImpl* storage = x.storage().unsafeGetStorageImpl();
  c10::Allocator* allocator =
      storage->allocator() ? storage->allocator() : c10::GetAllocator(x.device().type());
  storage->set_data_ptr_noswap(allocator->allocate(bytes));
  storage->set_nbytes(bytes);
}

ShardBucket::ShardBucket(const std::vector<std::pair<std::string, Tensor>>& params,
                         const Group& shards, const Mesh& mesh, BucketOptions options)
    : shard_group_(&shards),
      replica_group_(&mesh.axis("replica")),
      losses_(static_cast<double>(mesh.world().size() / mesh.axis("pipeline").size())),
      fp8_(std::move(options.fp8)),
      away_(std::move(options.away)),
      device_(params.front().second.device()) {
  torch::NoGradGuard no_grad;
  const int64_t rank = shard_group_->rank(), ranks = shard_group_->size();
  for (const auto& [name, full] : params) {
    require(full.dim() > 0, name, ": a parameter without dimensions cannot be sharded");
    require(full.is_contiguous(), name, ": expected a contiguous parameter to shard");
    const bool trained = full.requires_grad();
    const auto dtype = trained ? wide_dtype(full) : full.scalar_type();
    std::vector<int64_t> sizes = full.sizes().vec();
    sizes[0] = shard_rows(sizes[0], rank, ranks).size();
    const Tensor shard = new_shard(sizes, dtype);
    if (modules::is_hollow(full))
      shard.zero_();
    else
      shard.copy_(shard_of(full.detach(), rank, ranks));
    const int64_t numel = ops::padded_shard_numel(full.sizes(), ranks);
    split_.push_back(numel);
    flat_ += numel;
    if (trained) {
      trained_.push_back(params_.size());
      trained_split_.push_back(numel);
      trained_flat_ += numel;
      shard.set_requires_grad(true);
    }
    params_.push_back({.name = name, .full = full, .shard = shard, .trained = trained});
    set_storage(full, 0);
  }
}

Tensor ShardBucket::new_shard(at::IntArrayRef sizes, torch::Dtype dtype) const {
  return away_ ? away_->empty(sizes, dtype)
               : torch::empty(sizes, torch::TensorOptions(dtype).device(device_));
}

Tensors ShardBucket::rows() const {
  Tensors shards;
  for (const Param& p : params_) shards.push_back(p.shard.detach());
  return shards;
}

void ShardBucket::begin_scales(bool learning, ShardTraffic& traffic) {
  if (fp8_) traffic.gathered += fp8_->begin_scales(rows(), learning);
}

void ShardBucket::end_scales() {
  if (fp8_) fp8_->end_scales();
}

/// This rank's rows to their place in `gathered`.
void ShardBucket::copy_in(const Tensor& gathered) const {
  const int64_t rank = shard_group_->rank();
  if (fp8_) {
    std::vector<int64_t> split = split_;
    for (int64_t& numel : split) numel /= 4;
    ops::all_gather_copy_in(fp8_->quantised(rows()), split, rank, gathered);
  } else if (params_[0].shard.device() == device_) {
    ops::all_gather_copy_in(rows(), split_, rank, gathered);
  } else {  // one copy a block rather than one a parameter
    const Tensor part = torch::empty(
        {1, flat_}, torch::TensorOptions(params_[0].full.scalar_type()).pinned_memory(true));
    ops::all_gather_copy_in(rows(), split_, 0, part);
    gathered[rank].copy_(part[0], /*non_blocking=*/true);
  }
}

void ShardBucket::prefetch(ShardTraffic& traffic) {
  if (whole_ || gathered_.defined()) return;
  torch::NoGradGuard no_grad;
  // Four 8-bit numbers travel as one float32.
  const auto options = params_[0].full.options().requires_grad(false);
  gathered_ = torch::empty({shard_group_->size(), flat_ / (fp8_ ? 4 : 1)},
                           fp8_ ? options.dtype(torch::kFloat32) : options);
  copy_in(gathered_);
  gather_ = shard_group_->all_gather(gathered_[shard_group_->rank()], gathered_.flatten());
  traffic.gathered += static_cast<int64_t>(gathered_.nbytes());
}

void ShardBucket::unshard(ShardTraffic& traffic) {
  if (whole_) return;
  prefetch(traffic);
  gather_.wait();
  Tensors outs;
  if (fp8_) {
    outs = fp8_->allocate();
  } else {
    for (const Param& p : params_) {
      set_storage(p.full, p.full.numel() * p.full.element_size());
      // variable_data(): filling must not look like a change to what autograd saved.
      outs.push_back(p.full.variable_data());
    }
  }
  ops::all_gather_copy_out(gathered_, outs);
  gathered_.reset();
  whole_ = true;
}

void ShardBucket::reshard() {
  if (!whole_) return;
  if (fp8_)
    fp8_->free();
  else
    for (const Param& p : params_) set_storage(p.full, 0);
  whole_ = false;
}

void ShardBucket::drop_prefetched() {
  if (!gathered_.defined()) return;
  gather_.wait();
  gathered_.reset();
}

bool ShardBucket::keeps_gradients() const {
  return std::any_of(params_.begin(), params_.end(),
                     [](const Param& p) { return p.sum.defined(); });
}

void ShardBucket::keep_gradients() {
  torch::NoGradGuard no_grad;
  for (const std::size_t i : trained_) {
    Param& p = params_[i];
    Tensor& grad = p.full.mutable_grad();
    if (!grad.defined()) continue;
    if (p.sum.defined())
      p.sum.add_(grad);
    else
      p.sum = grad.to(wide_dtype(p.full));
    grad.reset();
  }
}

void ShardBucket::reduce(ShardTraffic& traffic) {
  if (trained_.empty()) return;
  torch::NoGradGuard no_grad;
  finish_reduce();
  const auto options = params_[trained_[0]].full.options().dtype(wide_dtype(params_[0].full));
  if (keeps_gradients()) keep_gradients();
  Tensors grads;
  for (const std::size_t i : trained_) {
    const Param& p = params_[i];
    const Tensor& grad = p.sum.defined() ? p.sum : p.full.grad();
    grads.push_back(grad.defined() ? grad : torch::zeros(p.full.sizes(), options));
  }
  chunked_ = torch::empty({shard_group_->size(), trained_flat_}, options);
  ops::reduce_scatter_copy_in(grads, chunked_);
  for (const std::size_t i : trained_) {
    params_[i].full.mutable_grad().reset();
    params_[i].sum.reset();
  }
  reduced_ = torch::empty({trained_flat_}, options);
  reduce_ = shard_group_->reduce_scatter(chunked_.flatten(), reduced_);
  traffic.reduced += static_cast<int64_t>(chunked_.nbytes());
}

void ShardBucket::finish_reduce() {
  if (!reduced_.defined()) return;
  torch::NoGradGuard no_grad;
  reduce_.wait();
  chunked_.reset();
  replica_group_->all_reduce(reduced_).wait();
  Tensors grads;
  const bool accumulate = params_[trained_[0]].shard.grad().defined();
  for (const std::size_t i : trained_) {
    Tensor& grad = params_[i].shard.mutable_grad();
    const Tensor& shard = params_[i].shard;
    if (!grad.defined()) grad = new_shard(shard.sizes(), shard.scalar_type());
    grads.push_back(grad);
  }
  ops::reduce_scatter_copy_out(reduced_.to(grads[0].device()), trained_split_, grads, 1 / losses_,
                               accumulate);
  reduced_.reset();
}

}  // namespace cosmos::trainer
