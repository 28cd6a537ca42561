#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include "ops/adamw/adamw.h"
#include "ops/adamw/moment_codes_reference.h"
#include "ops/core/check.h"

namespace cosmos::ops::reference {

void adamw_step(const AdamWState& s, const AdamWOptions& o, const at::Tensor& clip) {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < s.params.size(); ++i) {
    const at::Tensor& p = s.params[i];
    const at::ScalarType wide = accumulate_dtype(p);
    const at::Tensor t = s.step[i].to(at::kDouble) + 1;
    const at::Tensor step_size = o.lr / (1 - at::pow(o.beta1, t));
    const at::Tensor correction = (1 - at::pow(o.beta2, t)).sqrt();
    at::Tensor g = s.grads[i].to(wide);
    if (clip.defined()) g = g * clip.to(wide);
    const bool coded = !s.exp_avg_scale.empty();
    const at::Tensor m0 = coded ? decode_moment({s.exp_avg[i], s.exp_avg_scale[i]}) : s.exp_avg[i];
    const at::Tensor v0 =
        coded ? decode_moment({s.exp_avg_sq[i], s.exp_avg_sq_scale[i]}) : s.exp_avg_sq[i];
    const at::Tensor m = m0 + (g - m0) * (1 - o.beta1);
    const at::Tensor v = v0 * o.beta2 + g * g * (1 - o.beta2);
    at::Tensor w = s.master.empty() ? p.to(wide) : s.master[i];
    w = w * (1 - o.lr * o.weight_decay) - step_size * m / (v.sqrt() / correction + o.eps);
    const auto assign = [&](const at::Tensor& to, const at::Tensor& value) {
      to.copy_(clip.defined() ? at::where(clip.isfinite(), value, to.to(value.scalar_type()))
                              : value);
    };
    if (!s.ema.empty()) assign(s.ema[i], s.ema[i] + (w - s.ema[i]) * (1 - o.ema_decay));
    if (!s.master.empty()) assign(s.master[i], w);
    if (coded) {
      const at::Tensor chance = moment_chances(m, t.item<int64_t>());
      const MomentCodes first = encode_moment(m, false, chance),
                        second = encode_moment(v, true, chance);
      assign(s.exp_avg[i], first.codes);
      assign(s.exp_avg_sq[i], second.codes);
      assign(s.exp_avg_scale[i], first.scale);
      assign(s.exp_avg_sq_scale[i], second.scale);
    } else {
      assign(s.exp_avg[i], m);
      assign(s.exp_avg_sq[i], v);
    }
    assign(p, w);
    assign(s.step[i], t);
  }
}

at::Tensor grad_norm(const std::vector<at::Tensor>& grads) {
  const at::NoGradGuard no_grad;
  at::Tensor total;
  at::ScalarType type = at::kDouble;
  for (const at::Tensor& g : grads) {
    if (!g.defined()) continue;
    if (g.scalar_type() != at::kDouble) type = at::kFloat;
    const at::Tensor square = g.to(at::kDouble).pow(2).sum();
    total = total.defined() ? total + square : square;
  }
  if (!total.defined()) return at::zeros({}, at::kFloat);
  return total.sqrt().to(type);
}

}  // namespace cosmos::ops::reference
