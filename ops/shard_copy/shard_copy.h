#pragma once

// Copies around the two collectives of a fully sharded trainer, each one pass over a whole list of
// tensors, dtype conversion included. Every parameter is sharded on dimension 0: of n rows rank r
// of `world` holds rows [r c, min((r + 1) c, n)), c = ceil(n / world), the chunks of torch.chunk;
// the last ones may be shorter or empty. In a flat buffer every chunk takes c rows' elements
// (split_sizes[i] = padded_shard_numel), the parameters one after the other, short chunks filled
// with zeros: the layout of torch's foreach_all_gather and foreach_reduce.
//
//   all_gather_copy_in       gathered[rank] = (shards[0], 0 .., shards[1], 0 .., ...)
//   all_gather_copy_out      outs[i] = the ranks' chunks of gathered on top of each other, padding
//                            dropped
//   reduce_scatter_copy_in   chunked[r] = (chunk r of grads[0], 0 .., chunk r of grads[1], ...)
//   reduce_scatter_copy_out  shards[i] = scale * part i of flat (+ shards[i] when `accumulate`)
//
// gathered, chunked: [world, flat]; flat: [flat], flat = sum of split_sizes. Shards, grads and outs
// have 1 or more dimensions; any of float32, bfloat16, float16, float64, mixed within a list, to
// any (float64 goes to 16 bits by way of float32, as copy_ does). What is written is contiguous;
// what is read is copied first when it is not. Nothing read may overlap what is written.
// all_gather_copy_in writes its own row only, so that the collective can run in place.
//
// These work on buffers: no autograd, and from C++ no version counter moves. Bytes: every element
// once read and once written (accumulate: its target once read); a CUDA launch takes 60 tensors.
// Each element has one writer: the same bits for any number of threads. Source: PyTorch FSDP2
// (fully_shard); ZeRO (Rajbhandari et al., SC 2020).
//
// Errors (cosmos::Error): a shape, dtype, device or layout that does not fit, with its index; a
// rank outside the world.

#include <ATen/core/Tensor.h>
#include <cstdint>

namespace cosmos::ops {

/// Elements that one rank's chunk of a tensor of `size` takes in a flat buffer:
/// ceil(size[0] / world) * size[1] * ...
int64_t padded_shard_numel(at::IntArrayRef size, int64_t world);

void all_gather_copy_in(at::TensorList shards, at::IntArrayRef split_sizes, int64_t rank,
                        const at::Tensor& gathered);

void all_gather_copy_out(const at::Tensor& gathered, at::TensorList outs);

void reduce_scatter_copy_in(at::TensorList grads, const at::Tensor& chunked);

/// The product and the sum are in float32 (float64 where flat or the shard is).
void reduce_scatter_copy_out(const at::Tensor& flat, at::IntArrayRef split_sizes,
                             at::TensorList shards, double scale = 1, bool accumulate = false);

/// The definition, operation by operation.
namespace reference {
void all_gather_copy_in(at::TensorList shards, at::IntArrayRef split_sizes, int64_t rank,
                        const at::Tensor& gathered);
void all_gather_copy_out(const at::Tensor& gathered, at::TensorList outs);
void reduce_scatter_copy_in(at::TensorList grads, const at::Tensor& chunked);
void reduce_scatter_copy_out(const at::Tensor& flat, at::IntArrayRef split_sizes,
                             at::TensorList shards, double scale = 1, bool accumulate = false);
}  // namespace reference

}  // namespace cosmos::ops
