// fsq.h for the dispatcher: checks, launch, schemas, autograd, and the entry points that C++ calls.

#include "ops/fsq/fsq.h"

#include <ATen/ops/empty.h>
#include <cmath>
#include <limits>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/core/check.h"
#include "ops/core/isa.h"
#include "ops/core/launch.h"
#include "ops/core/path.h"
#include "ops/core/registry.h"
#include "ops/fsq/fsq_kernel.h"

namespace cosmos::ops {

COSMOS_SIMD_KERNEL(fsq_forward, FsqForward)
COSMOS_SIMD_KERNEL(fsq_backward, FsqBackward)
COSMOS_SIMD_KERNEL(fsq_decode_rows, FsqDecode)

namespace {

using at::IntArrayRef;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Pair = std::tuple<Tensor, Tensor>;
using MaybeDtype = std::optional<at::ScalarType>;

FsqLevels levels_of(const char* op, IntArrayRef levels, double eps) {
  require(!levels.empty() && levels.size() <= FsqLevels::kMost, op, ": levels: expected 1 to ",
          FsqLevels::kMost, " dimensions, got ", levels.size());
  FsqLevels l{};
  int64_t codes = 1;
  for (const int64_t count : levels) {
    require(count >= 2, op, ": levels: expected at least 2 a dimension, got ", levels);
    const double half = static_cast<double>(count - 1) * (1 + eps) / 2;
    const double offset = count % 2 == 0 ? 0.5 : 0.0;
    l.levels[l.dims] = static_cast<int>(count);
    l.basis[l.dims] = static_cast<int>(codes);
    l.half[l.dims] = half;
    l.offset[l.dims] = offset;
    l.shift[l.dims] = std::atanh(offset / half);
    ++l.dims;
    require(count <= std::numeric_limits<int32_t>::max() / codes, op,
            ": levels: expected at most 2^31 - 1 codes, got the levels ", levels);
    codes *= count;
  }
  return l;
}

FsqLevels check_latent(const Tensor& z, IntArrayRef levels, double eps) {
  dtype_of("fsq", "z", z);
  require(eps > 0, "fsq: eps: expected more than 0, got ", eps);
  const FsqLevels l = levels_of("fsq", levels, eps);
  require(z.dim() >= 1 && z.sym_size(-1) == l.dims, "fsq: z: expected [..., ", l.dims,
          "] for the levels ", levels, ", got ", describe(z));
  return l;
}

Pair fsq_plain(const Tensor& z_any, IntArrayRef levels, double eps) {
  const FsqLevels l = check_latent(z_any, levels, eps);
  if (use_reference(z_any)) return reference::fsq(z_any, levels, eps);
  const auto shape = z_any.sym_sizes();
  const Tensor codes = at::empty_symint(shape, z_any.options());
  const Tensor indices =
      at::empty_symint(shape.slice(0, shape.size() - 1), z_any.options().dtype(at::kInt));
  if (z_any.is_meta()) return {codes, indices};
  const Tensor z = z_any.contiguous();
  const FsqForward p{dtype_of("fsq", "z", z),  l,
                     indices.numel(),          z.const_data_ptr(),
                     codes.mutable_data_ptr(), indices.mutable_data_ptr<int32_t>()};
  launch(z, p, p.rows, grain_rows(l.dims), ops::fsq_forward, COSMOS_CUDA_KERNEL(fsq_forward_cuda));
  return {codes, indices};
}

Tensor fsq_backward_plain(const Tensor& grad_any, const Tensor& z_any, IntArrayRef levels,
                          double eps) {
  const FsqLevels l = check_latent(z_any, levels, eps);
  check_same("fsq_backward", "z", z_any, "grad", grad_any);
  const Tensor grad_z = at::empty_symint(z_any.sym_sizes(), z_any.options());
  if (z_any.is_meta()) return grad_z;
  const Tensor z = z_any.contiguous(), grad = grad_any.contiguous();
  const FsqBackward p{dtype_of("fsq", "z", z), l,
                      z.numel() / l.dims,      grad.const_data_ptr(),
                      z.const_data_ptr(),      grad_z.mutable_data_ptr()};
  launch(z, p, p.rows, grain_rows(l.dims), ops::fsq_backward,
         COSMOS_CUDA_KERNEL(fsq_backward_cuda));
  return grad_z;
}

Tensor fsq_decode_plain(const Tensor& indices_any, IntArrayRef levels, MaybeDtype dtype) {
  const FsqLevels l = levels_of("fsq_decode", levels, 1e-3);
  require(indices_any.scalar_type() == at::kInt, "fsq_decode: indices: expected int32, got ",
          describe(indices_any));
  const at::ScalarType type = dtype.value_or(at::kFloat);
  auto shape = indices_any.sym_sizes().vec();
  shape.emplace_back(l.dims);
  const Tensor codes = at::empty_symint(shape, indices_any.options().dtype(type));
  const DType kernel_type = dtype_of("fsq_decode", "codes", codes);
  if (use_reference(codes)) return reference::fsq_decode(indices_any, levels, type);
  if (indices_any.is_meta()) return codes;
  const Tensor indices = indices_any.contiguous();
  const FsqDecode p{kernel_type, l, indices.numel(), indices.const_data_ptr<int32_t>(),
                    codes.mutable_data_ptr()};
  launch(indices, p, p.rows, grain_rows(l.dims), ops::fsq_decode_rows,
         COSMOS_CUDA_KERNEL(fsq_decode_cuda));
  return codes;
}

struct FsqFunction : torch::autograd::Function<FsqFunction> {
  static variable_list forward(AutogradContext* ctx, const Tensor& z, IntArrayRef levels,
                               double eps) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = operator_handle<decltype(fsq_plain)>("fsq");
    ctx->save_for_backward({z});
    ctx->saved_data["levels"] = levels;
    ctx->saved_data["eps"] = eps;
    auto [codes, indices] = op.call(z, levels, eps);
    ctx->mark_non_differentiable({indices});
    return {codes, indices};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    refuse_double_backward("fsq");
    static const auto op = operator_handle<decltype(fsq_backward_plain)>("fsq_backward");
    const std::vector<int64_t> levels = ctx->saved_data["levels"].toIntVector();
    return {
        op.call(grads[0], ctx->get_saved_variables()[0], levels, ctx->saved_data["eps"].toDouble()),
        Tensor(), Tensor()};
  }
};

Pair fsq_autograd(const Tensor& z, IntArrayRef levels, double eps) {
  check_latent(z, levels, eps);
  if (use_reference(z)) return reference::fsq(z, levels, eps);
  const variable_list out = FsqFunction::apply(z, levels, eps);
  return {out[0], out[1]};
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def("fsq(Tensor z, int[] levels, float eps=0.001) -> (Tensor, Tensor)");
  m.def("fsq_backward(Tensor grad, Tensor z, int[] levels, float eps) -> Tensor");
  m.def("fsq_decode(Tensor indices, int[] levels, ScalarType? dtype=None) -> Tensor");
}

void register_devices(torch::Library& m) {
  m.impl("fsq", fsq_plain);
  m.impl("fsq_backward", fsq_backward_plain);
  m.impl("fsq_decode", fsq_decode_plain);
}

COSMOS_REGISTER_DEVICES(register_devices)

TORCH_LIBRARY_IMPL(cosmos, Autograd, m) {
  m.impl("fsq", fsq_autograd);
}

}  // namespace

Pair fsq(const Tensor& z, IntArrayRef levels, double eps) {
  static const auto op = operator_handle<decltype(fsq)>("fsq");
  return op.call(z, levels, eps);
}

Tensor fsq_decode(const Tensor& indices, IntArrayRef levels, at::ScalarType dtype) {
  static const auto op = operator_handle<decltype(fsq_decode_plain)>("fsq_decode");
  return op.call(indices, levels, dtype);
}

}  // namespace cosmos::ops
