#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/constant_pad_nd.h>

#include "ops/core/check.h"
#include "ops/shard_copy/shard_copy.h"

namespace cosmos::ops::reference {

using at::Tensor;

void all_gather_copy_in(at::TensorList shards, at::IntArrayRef split_sizes, int64_t rank,
                        const Tensor& gathered) {
  const at::NoGradGuard no_grad;
  int64_t offset = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const Tensor part = gathered[rank].narrow(0, offset, split_sizes[i]);
    part.zero_();
    part.narrow(0, 0, shards[i].numel()).copy_(shards[i].flatten());
    offset += split_sizes[i];
  }
}

void all_gather_copy_out(const Tensor& gathered, at::TensorList outs) {
  const at::NoGradGuard no_grad;
  int64_t offset = 0;
  for (const Tensor& out : outs) {
    const int64_t chunk = padded_shard_numel(out.sizes(), gathered.size(0));
    const Tensor rows = gathered.narrow(1, offset, chunk).flatten();
    out.copy_(rows.narrow(0, 0, out.numel()).view(out.sizes()));
    offset += chunk;
  }
}

void reduce_scatter_copy_in(at::TensorList grads, const Tensor& chunked) {
  const at::NoGradGuard no_grad;
  const int64_t world = chunked.size(0);
  int64_t offset = 0;
  for (const Tensor& grad : grads) {
    const int64_t chunk = padded_shard_numel(grad.sizes(), world);
    const Tensor padded =
        at::constant_pad_nd(grad.flatten(), {0, chunk * world - grad.numel()}).view({world, chunk});
    chunked.narrow(1, offset, chunk).copy_(padded);
    offset += chunk;
  }
}

void reduce_scatter_copy_out(const Tensor& flat, at::IntArrayRef split_sizes, at::TensorList shards,
                             double scale, bool accumulate) {
  const at::NoGradGuard no_grad;
  int64_t offset = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const Tensor& shard = shards[i];
    const at::ScalarType wide =
        flat.scalar_type() == at::kDouble ? at::kDouble : accumulate_dtype(shard);
    const Tensor part = flat.narrow(0, offset, shard.numel()).view(shard.sizes()).to(wide) * scale;
    shard.copy_(accumulate ? shard.to(wide) + part : part);
    offset += split_sizes[i];
  }
}

}  // namespace cosmos::ops::reference
