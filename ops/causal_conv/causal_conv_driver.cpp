// Causal convolution on the CPU: for every temporal tap, the frames that it sees where they lie,
// and one library product or 2-D convolution added to the output.

#include "ops/causal_conv/causal_conv_driver.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <algorithm>

namespace cosmos::ops::driver {
namespace {

using at::Tensor;
using Optional = std::optional<Tensor>;

struct Conv {
  int64_t st, sh, sw, pad;
  int64_t n;  ///< frames before x
  bool repeat_first;
  int64_t frames;  ///< that come out
  bool pointwise;  ///< 1 x 1 in space: products
  Tensor weight;   ///< [O, C, kt, kh, kw]

  int64_t taps() const { return weight.size(2); }
};

Conv make_conv(const Tensor& x, const Optional& past, const Tensor& weight, at::IntArrayRef stride,
               int64_t pad, int64_t front, bool repeat_first) {
  Conv c{stride[0],    stride[1], stride[2], pad,   past ? past->size(1) : front,
         repeat_first, 0,         false,     weight};
  const int64_t room = c.n + x.size(1) - weight.size(2);
  c.frames = room < 0 ? 0 : room / c.st + 1;
  c.pointwise = weight.size(3) == 1 && weight.size(4) == 1 && c.sh == 1 && c.sw == 1 && pad == 0;
  return c;
}

/// Output frames [begin, begin + count) and what tap `tap` multiplies for them: frames first, first
/// + step, ... of `source`.
struct Part {
  enum Source { kInput, kPast } source;
  int64_t tap, begin, count, first, step;
};

/// All taps of all output frames, the last tap first: it reaches back least, and covers them all
/// unless more frames stand before the clip than the kernel needs. Taps on zeros are left out.
std::vector<Part> parts_of(const Conv& c, bool past) {
  std::vector<Part> parts;
  for (int64_t k = c.taps() - 1; k >= 0; --k) {
    // Output t sees frame t st + k - n of x, which is there from `inside` on.
    const int64_t inside = std::clamp<int64_t>((c.n - k + c.st - 1) / c.st, 0, c.frames);
    if (inside < c.frames)
      parts.push_back({Part::kInput, k, inside, c.frames - inside, inside * c.st + k - c.n, c.st});
    if (inside > 0 && past) parts.push_back({Part::kPast, k, 0, inside, k, c.st});
    if (inside > 0 && !past && c.repeat_first) parts.push_back({Part::kInput, k, 0, inside, 0, 0});
  }
  return parts;
}

/// Frames of one clip, [count, H, W, C]; a step of 0 repeats one.
Tensor frames_of(const Tensor& clip, const Part& p) {
  const Tensor first = clip.narrow(0, p.first, 1);
  if (p.step == 0) return first.expand({p.count, -1, -1, -1});
  return clip.slice(0, p.first, p.first + (p.count - 1) * p.step + 1, p.step);
}

/// Calls fn(output frames' rows, input frames' rows) for runs of frames that lie one after another.
template <typename Fn>
void each_run(const Tensor& out, const Tensor& in, const Part& p, Fn fn) {
  const Tensor mine = out.narrow(0, p.begin, p.count), theirs = frames_of(in, p);
  const auto rows = [](const Tensor& frames) { return frames.reshape({-1, frames.size(-1)}); };
  if (p.step == 1) return fn(rows(mine), rows(theirs));
  for (int64_t i = 0; i < p.count; ++i) fn(rows(mine[i]), rows(theirs[i]));
}

Tensor channels_first(const Tensor& frames) {
  return frames.permute({0, 3, 1, 2});
}

Tensor tap_weight(const Conv& c, int64_t tap) {
  const Tensor w = c.weight.select(2, tap);
  return c.pointwise ? w.flatten(1) : w.contiguous(at::MemoryFormat::ChannelsLast);
}

/// y += a tap of one clip, or y = bias + a tap where `assign`.
void add_part(const Conv& c, const Part& p, const Tensor& clip, const Tensor& w,
              const Optional& bias, bool assign, const Tensor& y) {
  if (c.pointwise) {
    each_run(y, clip, p, [&](Tensor out, const Tensor& in) {
      if (!assign)
        out.addmm_(in, w.t());
      else if (bias)
        at::addmm_out(out, *bias, in, w.t());
      else
        at::mm_out(out, in, w.t());
    });
    return;
  }
  const Tensor part =
      at::conv2d(channels_first(frames_of(clip, p)), w, assign ? bias : std::nullopt,
                 std::array<int64_t, 2>{c.sh, c.sw}, std::array<int64_t, 2>{c.pad, c.pad});
  Tensor out = y.narrow(0, p.begin, p.count);
  assign ? out.copy_(part.permute({0, 2, 3, 1})) : out.add_(part.permute({0, 2, 3, 1}));
}

/// The gradients of a tap: of its input frames into grad_clip (in place of what is there where
/// `assign`), of its weight into grad_weight. Undefined ones are not wanted.
void add_part_gradients(const Conv& c, const Part& p, const Tensor& grad, const Tensor& clip,
                        const Tensor& w, bool assign, Tensor grad_clip, Tensor grad_weight) {
  if (c.pointwise) {
    if (grad_weight.defined())
      each_run(grad, clip, p,
               [&](const Tensor& dy, const Tensor& in) { grad_weight.addmm_(dy.t(), in); });
    if (grad_clip.defined())
      each_run(grad, grad_clip, p, [&](const Tensor& dy, Tensor dx) {
        assign ? at::mm_out(dx, dy, w) : dx.addmm_(dy, w);
      });
    return;
  }
  const Tensor dy = channels_first(grad.narrow(0, p.begin, p.count));
  const auto [dx, dw, none] = at::convolution_backward(
      dy, channels_first(frames_of(clip, p)), w, std::nullopt, {c.sh, c.sw}, {c.pad, c.pad}, {1, 1},
      false, {0, 0}, 1, {grad_clip.defined(), grad_weight.defined(), false});
  if (grad_weight.defined()) grad_weight.add_(dw);
  if (!grad_clip.defined()) return;
  const Tensor frames = dx.permute({0, 2, 3, 1});
  if (assign)
    frames_of(grad_clip, p).copy_(frames);
  else if (p.step == 0)
    grad_clip[p.first].add_(frames.sum(0));
  else
    frames_of(grad_clip, p).add_(frames);
}

c10::SymInt extent(const c10::SymInt& length, int64_t pad, const c10::SymInt& kernel,
                   int64_t stride) {
  return (length + 2 * pad - kernel) / stride + 1;
}

Tensor make_output(const Tensor& x, const Optional& past, const Tensor& weight,
                   at::IntArrayRef stride, int64_t pad, int64_t front) {
  const c10::SymInt n = past ? past->sym_size(1) : c10::SymInt(front);
  const c10::SymInt room = n + x.sym_size(1) - weight.sym_size(2);
  const c10::SymInt frames = room < 0 ? c10::SymInt(0) : room / stride[0] + 1;
  return at::empty_symint(
      {x.sym_size(0), frames, extent(x.sym_size(2), pad, weight.sym_size(3), stride[1]),
       extent(x.sym_size(3), pad, weight.sym_size(4), stride[2]), weight.sym_size(0)},
      x.options());
}

}  // namespace

Tensor causal_conv(const Tensor& x, const Optional& past, const Tensor& weight,
                   const Optional& bias, at::IntArrayRef stride, int64_t space_pad, int64_t front,
                   bool repeat_first) {
  const Tensor y = make_output(x, past, weight, stride, space_pad, front);
  if (x.is_meta() || y.numel() == 0) return y;
  const Conv c = make_conv(x, past, weight, stride, space_pad, front, repeat_first);
  const std::vector<Part> parts = parts_of(c, past.has_value());
  const bool covered = !parts.empty() && parts[0].count == c.frames;
  if (!covered) bias ? Tensor(y).copy_(*bias) : Tensor(y).zero_();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Part& p = parts[i];
    const Tensor w = tap_weight(c, p.tap), &source = p.source == Part::kPast ? *past : x;
    for (int64_t b = 0; b < x.size(0); ++b)
      add_part(c, p, source[b], w, bias, covered && i == 0, y[b]);
  }
  return y;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> causal_conv_backward(
    const Tensor& grad, const Tensor& x, const Optional& past, const Tensor& weight,
    at::IntArrayRef stride, int64_t space_pad, int64_t front, bool repeat_first,
    std::array<bool, 4> wanted) {
  const auto none = [&] { return at::empty({0}, x.options()); };
  const Tensor grad_x = wanted[0] ? at::empty_like(x, {}, at::MemoryFormat::Contiguous) : none();
  const Tensor grad_past = wanted[1] && past ? at::zeros_like(*past) : none();
  Tensor grad_bias = none();
  if (x.is_meta())
    return {grad_x, grad_past, wanted[2] ? at::empty_like(weight) : none(),
            wanted[3] ? at::empty_symint({weight.sym_size(0)}, x.options()) : none()};
  const Conv c = make_conv(x, past, weight, stride, space_pad, front, repeat_first);
  const Tensor dy = grad.contiguous();
  if (wanted[3]) grad_bias = at::sum(dy, {0, 1, 2, 3});
  // One matrix or kernel a tap, side by side; in the weight's order at the end.
  const Tensor by_tap =
      wanted[2]
          ? at::zeros({c.taps(), weight.size(0), weight.size(1), weight.size(3), weight.size(4)},
                      weight.options())
          : Tensor();
  const std::vector<Part> parts = parts_of(c, past.has_value());
  // The last tap comes first and, in a kernel no longer than what stands in front, sees every
  // frame.
  const bool covered = !parts.empty() && parts[0].step == 1 && parts[0].count == x.size(1);
  if (wanted[0] && !covered) Tensor(grad_x).zero_();
  for (const Part& p : parts) {
    const bool of_past = p.source == Part::kPast;
    const Tensor w = tap_weight(c, p.tap), &source = of_past ? *past : x;
    const bool source_wanted = of_past ? wanted[1] : wanted[0];
    Tensor dw = wanted[2] ? by_tap[p.tap] : Tensor();
    if (wanted[2] && c.pointwise) dw = dw.flatten(1);
    for (int64_t b = 0; dy.numel() > 0 && b < x.size(0); ++b)
      add_part_gradients(c, p, dy[b], source[b], w, covered && &p == &parts[0],
                         source_wanted ? (of_past ? grad_past : grad_x)[b] : Tensor(), dw);
  }
  return {grad_x, grad_past, wanted[2] ? by_tap.permute({1, 2, 0, 3, 4}).contiguous() : none(),
          grad_bias};
}

}  // namespace cosmos::ops::driver
