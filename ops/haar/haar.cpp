// haar.h for the dispatcher: checks, shapes, launch, schemas and autograd. As operators both have a
// `front` (HaarFront) and a `scale` (of the result), so that each can be the other's transpose.

#include "ops/haar/haar.h"

#include <ATen/ops/empty.h>
#include <c10/util/DimVector.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/core/check.h"
#include "ops/core/isa.h"
#include "ops/core/launch.h"
#include "ops/core/path.h"
#include "ops/core/registry.h"
#include "ops/haar/haar_kernel.h"

namespace cosmos::ops {

COSMOS_SIMD_KERNEL(haar_patch_rows, HaarTransform)
COSMOS_SIMD_KERNEL(haar_unpatch_rows, HaarTransform)

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Operator = Tensor(const Tensor&, int64_t, int64_t, double);

int64_t cube(int64_t p) {
  return p * p * p;
}

int64_t front_of(bool first) {
  return static_cast<int64_t>(first ? HaarFront::kStart : HaarFront::kNone);
}

int64_t transposed(int64_t front) {
  return front == 0 ? 0 : 3 - front;
}

/// Kernels are compiled for the patches that tokenizers have.
bool plain_formula(const Tensor& x, int64_t p) {
  return use_reference(x) || (p != 2 && p != 4);
}

void check_options(const char* op, const Tensor& x, int64_t p, int64_t front) {
  dtype_of(op, "x", x);
  require(p >= 1 && (p & (p - 1)) == 0, op, ": patch_size: expected a power of two, got ", p);
  require(front >= 0 && front <= 2, op, ": front: expected 0, 1 or 2, got ", front);
}

/// [B, T', H / p, W / p, p³ C].
c10::SymDimVector patches_shape(const Tensor& x, int64_t p, int64_t front) {
  check_options("haar_patch", x, p, front);
  require(x.dim() == 5, "haar_patch: video: expected [B, C, T, H, W], got ", describe(x));
  const c10::SymInt frames = x.sym_size(2) + (front == 0 ? 0 : p - 1);
  require(frames % p == 0 && x.sym_size(3) % p == 0 && x.sym_size(4) % p == 0 &&
              (front == 0 || x.sym_size(2) > 0),
          "haar_patch: video: expected H and W that are multiples of ", p, ", and ",
          front == 0 ? "T too" : "one frame more than a multiple", ", got ", describe(x));
  return {x.sym_size(0), frames / p, x.sym_size(3) / p, x.sym_size(4) / p, x.sym_size(1) * cube(p)};
}

/// [B, C, T, H, W].
c10::SymDimVector video_shape(const Tensor& x, int64_t p, int64_t front) {
  check_options("haar_unpatch", x, p, front);
  require(x.dim() == 5 && x.sym_size(4) % cube(p) == 0,
          "haar_unpatch: patches: expected [B, T, H, W, C] with C a multiple of ", cube(p),
          ", got ", describe(x));
  require(front == 0 || x.sym_size(1) > 0,
          "haar_unpatch: patches: expected at least one frame at the start of a clip, got ",
          describe(x));
  return {x.sym_size(0), x.sym_size(4) / cube(p), x.sym_size(1) * p - (front == 0 ? 0 : p - 1),
          x.sym_size(2) * p, x.sym_size(3) * p};
}

HaarTransform transform_of(const Tensor& video, const Tensor& patches, int64_t p, int64_t front,
                           double scale, const Tensor& from, const Tensor& to) {
  HaarTransform t{};
  t.dtype = dtype_of("haar", "x", video);
  t.front = static_cast<HaarFront>(front);
  t.patch = p;
  t.batch = video.size(0);
  t.channels = video.size(1);
  t.frames = video.size(2);
  t.blocks_t = patches.size(1);
  t.blocks_h = patches.size(2);
  t.blocks_w = patches.size(3);
  t.scale = scale;
  t.from = from.const_data_ptr();
  t.to = to.mutable_data_ptr();
  return t;
}

template <typename Cpu, typename Cuda>
void run(const Tensor& x, const HaarTransform& t, Cpu cpu, Cuda cuda) {
  const int64_t rows = x.numel() > 0 ? t.batch * t.blocks_t * t.blocks_h : 0;
  launch(x, t, rows, grain_rows(t.blocks_w * t.channels * cube(t.patch)), cpu, cuda);
}

/// The samples' bands, times `scale`.
Tensor haar_patch_plain(const Tensor& video, int64_t p, int64_t front, double scale) {
  const auto shape = patches_shape(video, p, front);
  if (plain_formula(video, p)) return reference::haar_patch(video, p, front, scale);
  const Tensor out = at::empty_symint(shape, video.options());
  if (video.is_meta()) return out;
  const Tensor x = video.contiguous();
  const double norm = scale / static_cast<double>(cube(p));
  run(x, transform_of(x, out, p, front, norm, x, out), ops::haar_patch_rows,
      COSMOS_CUDA_KERNEL(haar_patch_cuda));
  return out;
}

/// The bands' samples, times `scale`.
Tensor haar_unpatch_plain(const Tensor& patches, int64_t p, int64_t front, double scale) {
  const auto shape = video_shape(patches, p, front);
  if (plain_formula(patches, p)) return reference::haar_unpatch(patches, p, front, scale);
  const Tensor out = at::empty_symint(shape, patches.options());
  if (patches.is_meta()) return out;
  const Tensor x = patches.contiguous();
  run(x, transform_of(out, x, p, front, scale, x, out), ops::haar_unpatch_rows,
      COSMOS_CUDA_KERNEL(haar_unpatch_cuda));
  return out;
}

const c10::TypedOperatorHandle<Operator>& patch_operator() {
  static const auto op = operator_handle<Operator>("haar_patch");
  return op;
}
const c10::TypedOperatorHandle<Operator>& unpatch_operator() {
  static const auto op = operator_handle<Operator>("haar_unpatch");
  return op;
}

/// Backward is the other operator, differentiable in turn. kPatch: haar_patch, else haar_unpatch.
template <bool kPatch>
struct HaarFunction : torch::autograd::Function<HaarFunction<kPatch>> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, int64_t p, int64_t front,
                        double scale) {
    const at::AutoDispatchBelowADInplaceOrView below;
    ctx->saved_data["p"] = p;
    ctx->saved_data["front"] = front;
    ctx->saved_data["scale"] = scale;
    return (kPatch ? patch_operator() : unpatch_operator()).call(x, p, front, scale);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const int64_t p = ctx->saved_data["p"].toInt();
    const int64_t front = transposed(ctx->saved_data["front"].toInt());
    const double n = static_cast<double>(cube(p)), scale = ctx->saved_data["scale"].toDouble();
    return {kPatch ? unpatch_operator().call(grads[0], p, front, scale / n)
                   : patch_operator().call(grads[0], p, front, scale * n),
            Tensor(), Tensor(), Tensor()};
  }
};

Tensor haar_patch_autograd(const Tensor& video, int64_t p, int64_t front, double scale) {
  patches_shape(video, p, front);
  if (plain_formula(video, p)) return reference::haar_patch(video, p, front, scale);
  return HaarFunction<true>::apply(video, p, front, scale);
}

Tensor haar_unpatch_autograd(const Tensor& patches, int64_t p, int64_t front, double scale) {
  video_shape(patches, p, front);
  if (plain_formula(patches, p)) return reference::haar_unpatch(patches, p, front, scale);
  return HaarFunction<false>::apply(patches, p, front, scale);
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def("haar_patch(Tensor video, int patch_size, int front=0, float scale=1.0) -> Tensor");
  m.def("haar_unpatch(Tensor patches, int patch_size, int front=0, float scale=1.0) -> Tensor");
}

void register_devices(torch::Library& m) {
  m.impl("haar_patch", haar_patch_plain);
  m.impl("haar_unpatch", haar_unpatch_plain);
}

COSMOS_REGISTER_DEVICES(register_devices)

TORCH_LIBRARY_IMPL(cosmos, Autograd, m) {
  m.impl("haar_patch", haar_patch_autograd);
  m.impl("haar_unpatch", haar_unpatch_autograd);
}

}  // namespace

Tensor haar_patch(const Tensor& video, int64_t patch_size, bool first) {
  return patch_operator().call(video, patch_size, front_of(first), 1.0);
}

Tensor haar_unpatch(const Tensor& patches, int64_t patch_size, bool first) {
  return unpatch_operator().call(patches, patch_size, front_of(first), 1.0);
}

}  // namespace cosmos::ops
