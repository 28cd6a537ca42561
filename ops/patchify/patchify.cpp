// patchify.h for the dispatcher: checks, shapes, launch, autograd, and the entry points for C++.

#include "ops/patchify/patchify.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/core/check.h"
#include "ops/core/isa.h"
#include "ops/core/launch.h"
#include "ops/core/path.h"
#include "ops/core/registry.h"
#include "ops/patchify/patchify_kernel.h"

namespace cosmos::ops {
COSMOS_SIMD_KERNEL(patchify, Patchify)
COSMOS_SIMD_KERNEL(unpatchify, Unpatchify)

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Schema = Tensor(const Tensor&, at::IntArrayRef, bool);

PatchOrder order_of(bool channels_last) {
  return channels_last ? PatchOrder::kChannelsLast : PatchOrder::kChannelsFirst;
}

void check(const char* op, const char* name, const Tensor& x, at::IntArrayRef patch) {
  require(x.defined() && x.dim() == 5 && x.element_size() <= 8, op, ": ", name,
          ": expected five dimensions of at most 8 bytes an element, got ", describe(x));
  require(patch.size() == 3 && patch[0] > 0 && patch[1] > 0 && patch[2] > 0, op,
          ": patch: expected three positive sizes, got ", patch);
}

void check_video(const Tensor& x, at::IntArrayRef patch) {
  check("patchify", "x", x, patch);
  for (int axis = 0; axis < 3; ++axis)
    require(x.sym_size(2 + axis) % patch[axis] == 0, "patchify: x: expected [B, C, T, H, W] that ",
            "divides into patches of ", patch, ", got ", describe(x));
}

void check_tokens(const Tensor& tokens, at::IntArrayRef patch) {
  check("unpatchify", "tokens", tokens, patch);
  require(tokens.sym_size(4) % (patch[0] * patch[1] * patch[2]) == 0,
          "unpatchify: tokens: expected [B, t, h, w, features] with features a multiple of ",
          patch[0] * patch[1] * patch[2], ", got ", describe(tokens));
}

Patches patches_of(const Tensor& video, at::IntArrayRef patch, PatchOrder order) {
  Patches p;
  p.bytes = static_cast<int>(video.element_size());
  p.batch = video.size(0), p.channels = video.size(1);
  p.pt = patch[0], p.ph = patch[1], p.pw = patch[2];
  p.t = video.size(2) / p.pt, p.h = video.size(3) / p.ph, p.w = video.size(4) / p.pw;
  p.features = p.channels * p.pt * p.ph * p.pw;
  for (int axis = 0; axis < 5; ++axis) p.video[axis] = video.stride(axis);
  const int64_t first[] = {p.pt * p.ph * p.pw, p.ph * p.pw, p.pw, 1};
  const int64_t last[] = {1, p.channels, p.pw * p.pt * p.channels, p.pt * p.channels};
  std::copy_n(order == PatchOrder::kChannelsFirst ? first : last, 4, p.token);
  return p;
}

/// Moves the pw neighbours of a patch's line as one element where both sides allow it.
Patches with_wide_elements(Patches p, const void* video, const void* tokens) {
  const int64_t wide = p.bytes * p.pw;
  bool fits = (wide == 2 || wide == 4 || wide == 8 || wide == 16) && p.video[4] == 1 &&
              p.token[3] == 1 && reinterpret_cast<uintptr_t>(video) % wide == 0 &&
              reinterpret_cast<uintptr_t>(tokens) % wide == 0;
  for (int axis = 0; axis < 4; ++axis) fits = fits && p.video[axis] % p.pw == 0;
  if (!fits) return p;
  for (int axis = 0; axis < 4; ++axis) p.video[axis] /= p.pw;
  for (int axis = 0; axis < 3; ++axis) p.token[axis] /= p.pw;
  p.features /= p.pw;
  p.bytes = static_cast<int>(wide);
  p.pw = 1;
  return p;
}

int64_t rows_to_copy(const Tensor& x, const Patches& p) {
  return x.numel() > 0 ? p.rows() : 0;
}

Tensor patchify_plain(const Tensor& x, at::IntArrayRef patch, bool channels_last) {
  check_video(x, patch);
  const int64_t pt = patch[0], ph = patch[1], pw = patch[2];
  const Tensor tokens = at::empty_symint({x.sym_size(0), x.sym_size(2) / pt, x.sym_size(3) / ph,
                                          x.sym_size(4) / pw, x.sym_size(1) * (pt * ph * pw)},
                                         x.options());
  if (x.is_meta()) return tokens;
  const Patchify p{with_wide_elements(patches_of(x, patch, order_of(channels_last)),
                                      x.const_data_ptr(), tokens.const_data_ptr()),
                   x.const_data_ptr(), tokens.mutable_data_ptr()};
  launch(
      x, p, rows_to_copy(x, p.patches), grain_rows(p.patches.w * p.patches.features),
      [](const Patchify& q, int64_t begin, int64_t end) { patchify(q, begin, end); },
      COSMOS_CUDA_KERNEL(patchify_cuda));
  return tokens;
}

Tensor unpatchify_plain(const Tensor& tokens_any, at::IntArrayRef patch, bool channels_last) {
  check_tokens(tokens_any, patch);
  const int64_t pt = patch[0], ph = patch[1], pw = patch[2];
  const auto size = [&](int64_t axis) { return tokens_any.sym_size(axis); };
  const Tensor video = at::empty_symint(
      {size(0), size(4) / (pt * ph * pw), size(1) * pt, size(2) * ph, size(3) * pw},
      tokens_any.options());
  if (tokens_any.is_meta()) return video;
  const Tensor tokens = tokens_any.contiguous();
  const Unpatchify p{with_wide_elements(patches_of(video, patch, order_of(channels_last)),
                                        video.const_data_ptr(), tokens.const_data_ptr()),
                     tokens.const_data_ptr(), video.mutable_data_ptr()};
  launch(
      tokens, p, rows_to_copy(tokens, p.patches), grain_rows(p.patches.w * p.patches.features),
      [](const Unpatchify& q, int64_t begin, int64_t end) { unpatchify(q, begin, end); },
      COSMOS_CUDA_KERNEL(unpatchify_cuda));
  return video;
}

/// Forward calls cosmos::`name`, backward its twin, which may be differentiated in turn.
struct PatchFunction : torch::autograd::Function<PatchFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, at::IntArrayRef patch,
                        bool channels_last, bool back) {
    const at::AutoDispatchBelowADInplaceOrView below;
    ctx->saved_data["patch"] = patch.vec();
    ctx->saved_data["channels_last"] = channels_last;
    ctx->saved_data["back"] = back;
    return operator_handle<Schema>(back ? "unpatchify" : "patchify").call(x, patch, channels_last);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto patch = ctx->saved_data["patch"].toIntVector();
    const PatchOrder order = order_of(ctx->saved_data["channels_last"].toBool());
    return {ctx->saved_data["back"].toBool() ? patchify(grads[0], patch, order)
                                             : unpatchify(grads[0], patch, order),
            Tensor(), Tensor(), Tensor()};
  }
};

Tensor patchify_autograd(const Tensor& x, at::IntArrayRef patch, bool channels_last) {
  check_video(x, patch);
  if (use_reference(x)) return reference::patchify(x, patch, order_of(channels_last));
  return PatchFunction::apply(x, patch, channels_last, /*back=*/false);
}

Tensor unpatchify_autograd(const Tensor& tokens, at::IntArrayRef patch, bool channels_last) {
  check_tokens(tokens, patch);
  if (use_reference(tokens)) return reference::unpatchify(tokens, patch, order_of(channels_last));
  return PatchFunction::apply(tokens, patch, channels_last, /*back=*/true);
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def("patchify(Tensor x, int[3] patch, bool channels_last=False) -> Tensor");
  m.def("unpatchify(Tensor tokens, int[3] patch, bool channels_last=False) -> Tensor");
}

void register_devices(torch::Library& m) {
  m.impl("patchify", patchify_plain);
  m.impl("unpatchify", unpatchify_plain);
}

COSMOS_REGISTER_DEVICES(register_devices)

TORCH_LIBRARY_IMPL(cosmos, Autograd, m) {
  m.impl("patchify", patchify_autograd);
  m.impl("unpatchify", unpatchify_autograd);
}

}  // namespace

Tensor patchify(const Tensor& x, at::IntArrayRef patch, PatchOrder order) {
  static const auto op = operator_handle<Schema>("patchify");
  return op.call(x, patch, order == PatchOrder::kChannelsLast);
}

Tensor unpatchify(const Tensor& tokens, at::IntArrayRef patch, PatchOrder order) {
  static const auto op = operator_handle<Schema>("unpatchify");
  return op.call(tokens, patch, order == PatchOrder::kChannelsLast);
}

}  // namespace cosmos::ops
