#include "ops/adamw/adamw.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <cmath>
#include <string>

#include "ops/adamw/adamw_kernel.h"
#include "ops/adamw/moment_codes.h"
#include "ops/core/check.h"
#include "ops/core/isa.h"
#include "ops/core/launch.h"
#include "ops/core/path.h"
#include "ops/core/registry.h"

namespace cosmos::ops {
COSMOS_SIMD_KERNEL(adamw_step, AdamWStep)
COSMOS_SIMD_KERNEL(square_sums, SquareSums)

namespace {

using at::Tensor;
using TensorList = std::vector<Tensor>;

void check_member(std::size_t i, const Tensor& param, const char* name, const Tensor& x,
                  at::ScalarType dtype) {
  require(x.defined() && x.sizes() == param.sizes() && x.device() == param.device() &&
              x.scalar_type() == dtype && x.is_contiguous(),
          "adamw_step: ", name, "[", i, "]: expected a contiguous ", c10::toString(dtype), " ",
          param.sizes(), " on ", param.device(), ", got ", describe(x),
          x.defined() && !x.is_contiguous() ? " (not contiguous)" : "");
}

void check_list(const AdamWState& s, const char* name, const TensorList& list, bool optional) {
  require(list.size() == s.params.size() || (optional && list.empty()), "adamw_step: ", name,
          ": expected ", s.params.size(), " tensors as params, got ", list.size());
}

void check_step(std::size_t i, const Tensor& param, const Tensor& step) {
  require(step.defined() && step.numel() == 1 && step.scalar_type() == at::kFloat &&
              step.device() == param.device(),
          "adamw_step: step[", i, "]: expected one float32 number on ", param.device(), ", got ",
          describe(step));
}

void check_scale(std::size_t i, const Tensor& param, const char* name, const Tensor& scale) {
  const int64_t blocks = (param.numel() + kMomentBlock - 1) / kMomentBlock;
  require(scale.defined() && scale.dim() == 1 && scale.size(0) == blocks &&
              scale.scalar_type() == at::kFloat && scale.device() == param.device() &&
              scale.is_contiguous(),
          "adamw_step: ", name, "[", i, "]: expected a contiguous float32 [", blocks, "] on ",
          param.device(), ", got ", describe(scale));
}

/// The param is what the step updates: there are no masters, or this one is the param itself.
bool own_master(const AdamWState& s, std::size_t i) {
  return s.master.empty() || s.master[i].const_data_ptr() == s.params[i].const_data_ptr();
}

bool is_wide(const Tensor& grad, at::ScalarType wide) {
  return grad.defined() && grad.scalar_type() == wide;
}

void check_state(const AdamWState& s, const Tensor& clip) {
  check_list(s, "grads", s.grads, false);
  check_list(s, "exp_avg", s.exp_avg, false);
  check_list(s, "exp_avg_sq", s.exp_avg_sq, false);
  check_list(s, "step", s.step, false);
  check_list(s, "master", s.master, true);
  check_list(s, "ema", s.ema, true);
  check_list(s, "exp_avg_scale", s.exp_avg_scale, true);
  check_list(s, "exp_avg_sq_scale", s.exp_avg_sq_scale, s.exp_avg_scale.empty());
  for (std::size_t i = 0; i < s.params.size(); ++i) {
    const Tensor& p = s.params[i];
    dtype_of("adamw_step", "params", p);
    require(p.is_contiguous(), "adamw_step: params[", i, "] is not contiguous");
    require(p.device() == s.params[0].device(), "adamw_step: params[", i, "] is on ", p.device(),
            ", params[0] on ", s.params[0].device(), ": step each device by itself");
    const at::ScalarType wide = accumulate_dtype(p);
    check_member(i, p, "grads", s.grads[i], is_wide(s.grads[i], wide) ? wide : p.scalar_type());
    const bool coded = !s.exp_avg_scale.empty();
    check_member(i, p, "exp_avg", s.exp_avg[i], coded ? at::kChar : wide);
    check_member(i, p, "exp_avg_sq", s.exp_avg_sq[i], coded ? at::kByte : wide);
    if (coded) {
      require(wide == at::kFloat, "adamw_step: params[", i, "]: 8-bit moments are not for float64");
      check_scale(i, p, "exp_avg_scale", s.exp_avg_scale[i]);
      check_scale(i, p, "exp_avg_sq_scale", s.exp_avg_sq_scale[i]);
    }
    check_step(i, p, s.step[i]);
    if (!s.master.empty()) check_member(i, p, "master", s.master[i], wide);
    if (!s.ema.empty()) check_member(i, p, "ema", s.ema[i], wide);
  }
  if (clip.defined() && !s.params.empty())
    require(clip.numel() == 1 && clip.device() == s.params[0].device() &&
                (clip.scalar_type() == at::kFloat || clip.scalar_type() == at::kDouble),
            "adamw_step: clip: expected one float32 or float64 number on ", s.params[0].device(),
            ", got ", describe(clip));
}

void add_units(std::vector<Unit>& units, std::size_t tensor, int64_t size) {
  for (int64_t begin = 0; begin < size; begin += kUnitElements)
    units.push_back({static_cast<int32_t>(tensor), begin});
}

AdamWState state_of(at::TensorList params, at::TensorList grads, at::TensorList exp_avg,
                    at::TensorList exp_avg_sq, at::TensorList step, at::TensorList master,
                    at::TensorList ema, at::TensorList exp_avg_scale,
                    at::TensorList exp_avg_sq_scale) {
  return {params.vec(), grads.vec(), exp_avg.vec(),       exp_avg_sq.vec(),      step.vec(),
          master.vec(), ema.vec(),   exp_avg_scale.vec(), exp_avg_sq_scale.vec()};
}

void adamw_step_schema(at::TensorList params, at::TensorList grads, at::TensorList exp_avg,
                       at::TensorList exp_avg_sq, at::TensorList step, at::TensorList master,
                       at::TensorList ema, const std::optional<Tensor>& clip, double lr,
                       double beta1, double beta2, double eps, double weight_decay,
                       double ema_decay, at::TensorList exp_avg_scale,
                       at::TensorList exp_avg_sq_scale) {
  adamw_step(state_of(params, grads, exp_avg, exp_avg_sq, step, master, ema, exp_avg_scale,
                      exp_avg_sq_scale),
             {.lr = lr,
              .beta1 = beta1,
              .beta2 = beta2,
              .eps = eps,
              .weight_decay = weight_decay,
              .ema_decay = ema_decay},
             clip.value_or(Tensor()));
}

Tensor grad_norm_schema(at::TensorList grads) {
  return grad_norm(grads.vec());
}

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def(
      "adamw_step_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avg, "
      "Tensor(c!)[] exp_avg_sq, Tensor(d!)[] step, Tensor(e!)[] master, Tensor(f!)[] ema, Tensor? "
      "clip, "
      "float lr, float beta1, float beta2, float eps, float weight_decay, float ema_decay, "
      "Tensor(g!)[] exp_avg_scale, Tensor(h!)[] exp_avg_sq_scale) -> ()");
  m.def("grad_norm(Tensor[] grads) -> Tensor");
}

void register_devices(torch::Library& m) {
  m.impl("adamw_step_", adamw_step_schema);
  m.impl("grad_norm", grad_norm_schema);
}

COSMOS_REGISTER_DEVICES(register_devices)

}  // namespace

void adamw_step(const AdamWState& s, const AdamWOptions& o, const Tensor& clip) {
  check_state(s, clip);
  if (s.params.empty() || s.params[0].is_meta()) return;
  if (use_reference(s.params[0])) return reference::adamw_step(s, o, clip);
  const at::NoGradGuard no_grad;
  // A skipped step does not count; the kernel reads the new count, so that no unit sees an old one.
  at::_foreach_add_(s.step, clip.defined() ? clip.isfinite().to(at::kFloat).reshape({})
                                           : at::ones({}, s.step[0].options()));
  std::vector<AdamWTensor> tensors;
  std::vector<Unit> units;
  for (std::size_t i = 0; i < s.params.size(); ++i) {
    const bool coded = !s.exp_avg_scale.empty();
    const bool wide_grad = is_wide(s.grads[i], accumulate_dtype(s.params[i]));
    tensors.push_back({dtype_of("adamw_step", "params", s.params[i]), wide_grad,
                       s.params[i].numel(), s.params[i].mutable_data_ptr(),
                       s.grads[i].const_data_ptr(), s.exp_avg[i].mutable_data_ptr(),
                       s.exp_avg_sq[i].mutable_data_ptr(),
                       coded ? s.exp_avg_scale[i].mutable_data_ptr<float>() : nullptr,
                       coded ? s.exp_avg_sq_scale[i].mutable_data_ptr<float>() : nullptr,
                       s.step[i].const_data_ptr<float>(),
                       own_master(s, i) ? nullptr : s.master[i].mutable_data_ptr(),
                       s.ema.empty() ? nullptr : s.ema[i].mutable_data_ptr()});
    add_units(units, i, s.params[i].numel());
  }
  const AdamWStep p{
      .tensors = tensors.data(),
      .units = units.data(),
      .tensor_count = static_cast<int64_t>(tensors.size()),
      .unit_count = static_cast<int64_t>(units.size()),
      .clip = clip.defined() ? clip.const_data_ptr() : nullptr,
      .clip_is_double = clip.defined() && clip.scalar_type() == at::kDouble,
      .lr = o.lr,
      .decay = 1 - o.lr * o.weight_decay,
      .beta1 = o.beta1,
      .beta2 = o.beta2,
      .eps = o.eps,
      .ema_decay = o.ema_decay,
  };
  launch(
      s.params[0], p, p.unit_count, 1,
      [](const AdamWStep& q, int64_t begin, int64_t end) { adamw_step(q, begin, end); },
      COSMOS_CUDA_KERNEL(adamw_step_cuda));
}

Tensor grad_norm(const std::vector<Tensor>& grads) {
  const at::NoGradGuard no_grad;
  std::vector<NormTensor> tensors;
  std::vector<Unit> units;
  TensorList held;  // contiguous copies, alive until the kernel has run
  at::ScalarType type = at::kDouble;
  for (const Tensor& g : grads) {
    if (!g.defined()) continue;
    if (use_reference(g)) return reference::grad_norm(grads);
    if (!held.empty())
      require(g.device() == held[0].device(), "grad_norm: expected all on ", held[0].device(),
              ", got one on ", g.device());
    if (g.scalar_type() != at::kDouble) type = at::kFloat;
    held.push_back(g.contiguous());
    add_units(units, tensors.size(), g.numel());
    tensors.push_back({dtype_of("grad_norm", "grads", g), g.numel(),
                       g.is_meta() ? nullptr : held.back().const_data_ptr()});
  }
  if (held.empty()) return at::zeros({}, at::kFloat);
  const Tensor partial =
      at::empty({static_cast<int64_t>(units.size())}, held[0].options().dtype(at::kDouble));
  const SquareSums p{tensors.data(), units.data(), static_cast<int64_t>(tensors.size()),
                     static_cast<int64_t>(units.size()),
                     partial.is_meta() ? nullptr : partial.mutable_data_ptr<double>()};
  launch(
      held[0], p, p.unit_count, 1,
      [](const SquareSums& q, int64_t begin, int64_t end) { square_sums(q, begin, end); },
      COSMOS_CUDA_KERNEL(square_sums_cuda));
  return partial.sum().sqrt().to(type);
}

Tensor clip_coefficient(const Tensor& norm, double max_norm) {
  require(max_norm > 0, "clip_coefficient: max_norm: expected more than 0, got ", max_norm);
  const at::NoGradGuard no_grad;
  const Tensor ratio = (norm + 1e-6).reciprocal() * max_norm;
  return at::where(norm.isfinite(), ratio.clamp_max(1.0), at::full_like(norm, NAN));
}

}  // namespace cosmos::ops
