// shard_copy.h for the dispatcher: checks, what each copy is to the kernel, schemas.

#include "ops/shard_copy/shard_copy.h"

#include <algorithm>
#include <c10/core/SymIntArrayRef.h>
#include <vector>

#include "ops/core/check.h"
#include "ops/core/isa.h"
#include "ops/core/launch.h"
#include "ops/core/path.h"
#include "ops/core/registry.h"
#include "ops/shard_copy/shard_copy_kernel.h"

namespace cosmos::ops {
COSMOS_SIMD_KERNEL(chunk_copy, ChunkCopy)

namespace {

using at::Tensor;
using c10::SymInt;
using c10::SymIntArrayRef;

/// A flat buffer beside a list of tensors, as one of the four copies got them.
struct Operands {
  const char* op;
  const char* buffer_name;
  const Tensor& buffer;
  const char* list_name;
  at::TensorList list;
};

SymInt padded_numel(const Tensor& x, const SymInt& world) {
  SymInt numel = (x.sym_size(0) + world - 1) / world;
  for (int64_t d = 1; d < x.dim(); ++d) numel = numel * x.sym_size(d);
  return numel;
}

/// Dtypes, devices, layout; `written`: the list is.
void check_operands(const Operands& o, int64_t buffer_dim, bool written) {
  dtype_of(o.op, o.buffer_name, o.buffer);
  require(o.buffer.dim() == buffer_dim && o.buffer.is_contiguous(), o.op, ": ", o.buffer_name,
          ": expected a contiguous ", buffer_dim == 2 ? "[world, flat]" : "[flat]", ", got ",
          describe(o.buffer), o.buffer.is_contiguous() ? "" : " (not contiguous)");
  require(buffer_dim == 1 || o.buffer.sym_size(0) > 0, o.op, ": ", o.buffer_name,
          ": expected one row or more, got ", describe(o.buffer));
  for (std::size_t i = 0; i < o.list.size(); ++i) {
    const Tensor& x = o.list[i];
    dtype_of(o.op, o.list_name, x);
    require(x.dim() >= 1 && x.device() == o.buffer.device() && (!written || x.is_contiguous()),
            o.op, ": ", o.list_name, "[", i, "]: expected ",
            written ? "a contiguous tensor" : "one", " of 1 or more dimensions on ",
            o.buffer.device(), ", got ", describe(x),
            written && !x.is_contiguous() ? " (not contiguous)" : "");
  }
}

/// Full parameters: their chunks must fill a row of the buffer.
void check_full(const Operands& o) {
  SymInt flat = 0;
  for (const Tensor& x : o.list) flat = flat + padded_numel(x, o.buffer.sym_size(0));
  require(o.buffer.sym_size(1) == flat, o.op, ": ", o.buffer_name, ": expected [world, ", flat,
          "] for ", o.list_name, " in ", o.buffer.sym_size(0), " chunks, got ", describe(o.buffer));
}

/// Shards: each within its part of the buffer's last dimension.
void check_shards(const Operands& o, SymIntArrayRef split_sizes) {
  require(split_sizes.size() == o.list.size(), o.op, ": split_sizes: expected ", o.list.size(),
          " sizes as ", o.list_name, ", got ", split_sizes.size());
  SymInt flat = 0;
  for (std::size_t i = 0; i < o.list.size(); ++i) {
    require(o.list[i].sym_numel() <= split_sizes[i], o.op, ": ", o.list_name, "[", i,
            "]: expected at most split_sizes[", i, "] = ", split_sizes[i], " elements, got ",
            describe(o.list[i]));
    flat = flat + split_sizes[i];
  }
  require(o.buffer.sym_size(-1) == flat, o.op, ": ", o.buffer_name, ": expected ", flat,
          " numbers in a row, the sum of split_sizes, got ", describe(o.buffer));
}

bool runs_reference(const Operands& o) {
  return use_reference(o.buffer) || std::any_of(o.list.begin(), o.list.end(), use_reference);
}

/// The list as the kernel walks it. Contiguous copies of what is read live as long as this.
class Copy {
 public:
  explicit Copy(const Operands& o) : operands_(o) {
    tensors_.reserve(o.list.size());
    held_.reserve(o.list.size());
  }

  /// Tensor i <- `ranks` chunks of the buffer from element `offset` on.
  void add_read(std::size_t i, int64_t offset, int64_t chunk, int64_t ranks) {
    const Tensor& x = operands_.list[i];
    const Tensor& buffer = operands_.buffer;
    const auto* data = static_cast<const char*>(buffer.const_data_ptr());
    add({type(buffer), type(x), data + offset * buffer.element_size(), x.mutable_data_ptr(), chunk,
         x.numel(), buffer.size(-1), chunk, units_},
        ranks);
  }

  /// Tensor i -> `ranks` chunks of the buffer from element `offset` on.
  void add_write(std::size_t i, int64_t offset, int64_t chunk, int64_t ranks) {
    const Tensor& x = held_.emplace_back(operands_.list[i].contiguous());
    const Tensor& buffer = operands_.buffer;
    auto* data = static_cast<char*>(buffer.mutable_data_ptr());
    add({type(x), type(buffer), x.const_data_ptr(), data + offset * buffer.element_size(), chunk,
         x.numel(), chunk, buffer.size(-1), units_},
        ranks);
  }

  void run(bool zero_padding, double scale = 1, bool accumulate = false) const {
    const ChunkCopy p{tensors_.data(), static_cast<int64_t>(tensors_.size()),
                      units_,          scale,
                      accumulate,      zero_padding};
    launch(
        operands_.buffer, p, units_, 1,
        [](const ChunkCopy& q, int64_t begin, int64_t end) { chunk_copy(q, begin, end); },
        COSMOS_CUDA_KERNEL(chunk_copy_cuda));
  }

 private:
  DType type(const Tensor& x) const { return dtype_of(operands_.op, operands_.list_name, x); }
  void add(const ChunkCopyTensor& tensor, int64_t ranks) {
    if (tensor.chunk == 0) return;
    tensors_.push_back(tensor);
    units_ += ranks * ((tensor.chunk + kCopyUnit - 1) / kCopyUnit);
  }

  const Operands& operands_;
  std::vector<ChunkCopyTensor> tensors_;
  std::vector<Tensor> held_;
  int64_t units_ = 0;
};

void all_gather_in(at::TensorList shards, SymIntArrayRef split_sizes, int64_t rank,
                   const Tensor& gathered) {
  const Operands o{"all_gather_copy_in", "gathered", gathered, "shards", shards};
  check_operands(o, 2, false);
  check_shards(o, split_sizes);
  require(rank >= 0 && gathered.sym_size(0) > rank, o.op, ": rank: expected 0 to ",
          gathered.sym_size(0) - 1, ", got ", rank);
  if (gathered.is_meta()) return;
  const at::IntArrayRef sizes = C10_AS_INTARRAYREF_SLOW(split_sizes);
  if (runs_reference(o)) return reference::all_gather_copy_in(shards, sizes, rank, gathered);
  Copy copy(o);
  int64_t offset = rank * gathered.size(1);
  for (std::size_t i = 0; i < shards.size(); offset += sizes[i++])
    copy.add_write(i, offset, sizes[i], 1);
  copy.run(/*zero_padding=*/true);
}

void reduce_scatter_out(const Tensor& flat, SymIntArrayRef split_sizes, at::TensorList shards,
                        double scale, bool accumulate) {
  const Operands o{"reduce_scatter_copy_out", "flat", flat, "shards", shards};
  check_operands(o, 1, true);
  check_shards(o, split_sizes);
  if (flat.is_meta()) return;
  const at::IntArrayRef sizes = C10_AS_INTARRAYREF_SLOW(split_sizes);
  if (runs_reference(o))
    return reference::reduce_scatter_copy_out(flat, sizes, shards, scale, accumulate);
  Copy copy(o);
  int64_t offset = 0;
  for (std::size_t i = 0; i < shards.size(); offset += sizes[i++])
    copy.add_read(i, offset, shards[i].numel(), 1);
  copy.run(/*zero_padding=*/false, scale, accumulate);
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def(
      "all_gather_copy_in(Tensor[] shards, SymInt[] split_sizes, int rank, Tensor(a!) gathered) "
      "-> ()");
  m.def("all_gather_copy_out(Tensor gathered, Tensor(a!)[] outs) -> ()");
  m.def("reduce_scatter_copy_in(Tensor[] grads, Tensor(a!) chunked) -> ()");
  m.def(
      "reduce_scatter_copy_out(Tensor flat, SymInt[] split_sizes, Tensor(a!)[] shards, "
      "float scale=1.0, bool accumulate=False) -> ()");
}

void register_devices(torch::Library& m) {
  m.impl("all_gather_copy_in", all_gather_in);
  m.impl("all_gather_copy_out", all_gather_copy_out);
  m.impl("reduce_scatter_copy_in", reduce_scatter_copy_in);
  m.impl("reduce_scatter_copy_out", reduce_scatter_out);
}

COSMOS_REGISTER_DEVICES(register_devices)

}  // namespace

int64_t padded_shard_numel(at::IntArrayRef size, int64_t world) {
  require(!size.empty() && world > 0,
          "padded_shard_numel: expected 1 or more dimensions and ranks, got ", size, " and ",
          world);
  int64_t numel = (size[0] + world - 1) / world;
  for (const int64_t n : size.slice(1)) numel *= n;
  return numel;
}

void all_gather_copy_in(at::TensorList shards, at::IntArrayRef split_sizes, int64_t rank,
                        const Tensor& gathered) {
  all_gather_in(shards, c10::fromIntArrayRefSlow(split_sizes), rank, gathered);
}

void all_gather_copy_out(const Tensor& gathered, at::TensorList outs) {
  const Operands o{"all_gather_copy_out", "gathered", gathered, "outs", outs};
  check_operands(o, 2, true);
  check_full(o);
  if (gathered.is_meta()) return;
  if (runs_reference(o)) return reference::all_gather_copy_out(gathered, outs);
  Copy copy(o);
  int64_t offset = 0;
  for (std::size_t i = 0; i < outs.size(); ++i) {
    const int64_t chunk = padded_shard_numel(outs[i].sizes(), gathered.size(0));
    copy.add_read(i, offset, chunk, gathered.size(0));
    offset += chunk;
  }
  copy.run(/*zero_padding=*/false);
}

void reduce_scatter_copy_in(at::TensorList grads, const Tensor& chunked) {
  const Operands o{"reduce_scatter_copy_in", "chunked", chunked, "grads", grads};
  check_operands(o, 2, false);
  check_full(o);
  if (chunked.is_meta()) return;
  if (runs_reference(o)) return reference::reduce_scatter_copy_in(grads, chunked);
  Copy copy(o);
  int64_t offset = 0;
  for (std::size_t i = 0; i < grads.size(); ++i) {
    const int64_t chunk = padded_shard_numel(grads[i].sizes(), chunked.size(0));
    copy.add_write(i, offset, chunk, chunked.size(0));
    offset += chunk;
  }
  copy.run(/*zero_padding=*/true);
}

void reduce_scatter_copy_out(const Tensor& flat, at::IntArrayRef split_sizes, at::TensorList shards,
                             double scale, bool accumulate) {
  reduce_scatter_out(flat, c10::fromIntArrayRefSlow(split_sizes), shards, scale, accumulate);
}

}  // namespace cosmos::ops
