#include "ops/linear_cross_entropy/linear_cross_entropy_driver.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <algorithm>
#include <limits>

#include "ops/core/check.h"
#include "ops/core/isa.h"
#include "ops/core/launch.h"
#include "ops/linear_cross_entropy/linear_cross_entropy_kernel.h"

namespace cosmos::ops {
COSMOS_SIMD_KERNEL(cross_entropy_rows, CrossEntropyRows)
}  // namespace cosmos::ops

namespace cosmos::ops::driver {
namespace {

using at::Tensor;
using Optional = std::optional<Tensor>;

int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

/// Tokens of a group in linear_cross_entropy_with_gradients. Each group reads the weight twice, and
/// reads and writes its gradient: 512 tokens hide that behind the products.
int64_t tokens_per_group(int64_t tokens) {
  return std::max<int64_t>(512, divide_up(tokens, 12));
}

/// Classes of a group elsewhere: a sixteenth of the logits or 16 million of them, the smaller, but
/// 2048 classes at least.
int64_t classes_per_group(int64_t tokens, int64_t classes) {
  constexpr int64_t kLogits = 16 << 20;
  const int64_t most = std::min(divide_up(classes, 16), kLogits / std::max<int64_t>(tokens, 1));
  return std::min(classes, divide_up(std::max<int64_t>(most, 2048), 64) * 64);
}

/// rows * columns elements of like's dtype; rows begin on 16 bytes whatever the number of columns.
Tensor make_workspace(const Tensor& like, int64_t rows, int64_t columns) {
  return at::empty({rows, divide_up(columns, 8) * 8}, like.options());
}

/// out = hidden weightᵀ. On the CPU in panels of classes: the library packs the weight for its own
/// use, and a panel is still in the cache when it is read back (a third of the time at 50 tokens).
void make_logits(const Tensor& hidden, const Tensor& weight, Tensor out) {
  const int64_t classes = weight.size(0), panel = hidden.is_cpu() ? 2048 : classes;
  for (int64_t first = 0; first < classes; first += panel) {
    const int64_t count = std::min(panel, classes - first);
    Tensor columns = out.narrow(1, first, count);
    at::mm_out(columns, hidden, weight.narrow(0, first, count).t());
  }
}

/// to = a b, or to += a b.
void multiply(Tensor to, const Tensor& a, const Tensor& b, bool add) {
  if (add)
    at::addmm_out(to, to, a, b);
  else
    at::mm_out(to, a, b);
}

/// to += a b, where `to` has the accumulate type.
void multiply_add_wide(Tensor to, const Tensor& a, const Tensor& b) {
  if (to.scalar_type() == a.scalar_type())
    multiply(to, a, b, true);
  else
    to.add_(at::mm(a, b));
}

const void* pointer(const Optional& x) {
  return x ? x->const_data_ptr() : nullptr;
}

/// What all groups share; logits, state, target and the group's place are filled in by run_rows().
CrossEntropyRows make_rows(const Tensor& hidden, const Tensor& weight, const Tensor& target,
                           int64_t ignore_index, double label_smoothing, double z_loss,
                           double scale) {
  require(hidden.dim() == 2 && weight.dim() == 2 && hidden.size(1) == weight.size(1) &&
              target.dim() == 1 && target.size(0) == hidden.size(0),
          "linear_cross_entropy: expected hidden [N, D], weight [V, D], target [N], got ",
          hidden.sizes(), ", ", weight.sizes(), ", ", target.sizes());
  CrossEntropyRows p{};
  p.dtype = dtype_of("linear_cross_entropy", "hidden", hidden);
  p.classes = weight.size(0);
  p.ignore_index = ignore_index;
  p.label_smoothing = label_smoothing;
  p.z_loss = z_loss;
  p.scale = scale;
  return p;
}

/// Runs the row kernel over `logits`, a view of the workspace.
void run_rows(CrossEntropyRows p, const Tensor& logits, const Optional& bias, const Tensor& target,
              const Tensor& state) {
  p.rows = logits.size(0);
  p.columns = logits.size(1);
  p.pitch = logits.stride(0);
  p.logits = logits.mutable_data_ptr();
  p.bias = pointer(bias);
  p.target = target.const_data_ptr<int64_t>();
  p.state = state.mutable_data_ptr();
  launch(logits, p, p.rows, grain_rows(p.columns), ops::cross_entropy_rows,
         COSMOS_CUDA_KERNEL(cross_entropy_rows_cuda));
}

Optional narrow(const Optional& bias, int64_t first, int64_t count) {
  return bias ? Optional(bias->narrow(0, first, count)) : std::nullopt;
}

/// Losses [N] from complete states.
Tensor losses(const Tensor& state, const Tensor& target, const CrossEntropyRows& p) {
  const Tensor lse = state.select(1, 0) + state.select(1, 1).log();
  Tensor loss = lse - (1 - p.label_smoothing) * state.select(1, 2);
  if (p.label_smoothing != 0)
    loss.sub_(state.select(1, 3), p.label_smoothing / static_cast<double>(p.classes));
  if (p.z_loss != 0) loss.add_(lse * lse, p.z_loss);
  return loss.masked_fill_(target.eq(p.ignore_index), 0);
}

Tensor entropies(const Tensor& state, const Tensor& target, const CrossEntropyRows& p) {
  const Tensor sum = state.select(1, 1);
  return (sum.log() - state.select(1, 4) / sum).masked_fill_(target.eq(p.ignore_index), 0);
}

/// Gradients to fill, [0] where not wanted.
std::tuple<Tensor, Tensor, Tensor> make_gradients(const Tensor& hidden, const Tensor& weight,
                                                  bool hidden_grad, bool weight_grad,
                                                  bool bias_grad) {
  const auto make = [](const Tensor& like, bool wanted, c10::SymIntArrayRef shape) {
    return wanted ? at::empty_symint(shape, like.options()) : at::empty({0}, like.options());
  };
  return {make(hidden, hidden_grad, hidden.sym_sizes()),
          make(weight, weight_grad, weight.sym_sizes()),
          make(weight, bias_grad, weight.sym_sizes().slice(0, 1))};
}

at::TensorOptions wide(const Tensor& x) {
  return x.options().dtype(accumulate_dtype(x));
}

/// Brings `mean` [N, D], each token's mean weight over the classes before (by their shares),
/// forward by a group of classes, as attention does with values. before, state: [N, 5], without and
/// with the group; shares: [N, classes of the group].
void add_to_mean(Tensor mean, const Tensor& before, const Tensor& state, const Tensor& shares,
                 const Tensor& weight) {
  const Tensor lower = before.select(1, 0) - state.select(1, 0);
  const Tensor kept = before.select(1, 1) / state.select(1, 1) * lower.exp();
  mean.mul_(kept.masked_fill(before.select(1, 1) == 0, 0).unsqueeze(1));
  multiply_add_wide(mean, shares, weight);
}

/// d loss / d hidden of each token, from its mean weight over all classes, in place.
Tensor hidden_gradient(Tensor mean, const Tensor& state, const Tensor& weight, const Tensor& target,
                       const CrossEntropyRows& p) {
  const Tensor ignored = target.eq(p.ignore_index);
  const Tensor classes = target.masked_fill(ignored, 0).clamp_(0, p.classes - 1);
  const Tensor lse = state.select(1, 0) + state.select(1, 1).log();
  if (p.z_loss != 0) mean.mul_((1 + 2 * p.z_loss * lse).unsqueeze(1));
  mean.sub_(at::index_select(weight, 0, classes), 1 - p.label_smoothing);
  if (p.label_smoothing != 0)
    mean.sub_(at::sum(weight, {0}, false, mean.scalar_type()),
              p.label_smoothing / static_cast<double>(p.classes));
  return mean.mul_(p.scale).masked_fill_(ignored.unsqueeze(1), 0);
}

/// Gradients of the classes of `weight`, into those that are wanted.
void fill_gradients(CrossEntropyRows p, const Tensor& grad, const Tensor& state,
                    const Tensor& hidden, const Tensor& weight, const Optional& bias,
                    const Tensor& target, Tensor grad_hidden, Tensor grad_weight, Tensor grad_bias,
                    bool hidden_grad, bool weight_grad, bool bias_grad) {
  const Tensor seeds = grad.contiguous();
  p.seed = seeds.const_data_ptr();
  p.seed_stride = 1;
  const int64_t tokens = hidden.size(0), here = weight.size(0);
  const int64_t step = classes_per_group(tokens, here);
  const Tensor workspace = make_workspace(hidden, tokens, step);
  const Tensor hidden_sum = hidden_grad ? at::zeros(hidden.sizes(), wide(hidden)) : Tensor();
  for (int64_t first = 0; first < here; first += step) {
    const int64_t count = std::min(step, here - first);
    const Tensor logits = workspace.narrow(1, 0, count), rows = weight.narrow(0, first, count);
    make_logits(hidden, rows, logits);
    p.first_class = first;
    run_rows(p, logits, narrow(bias, first, count), target, state);
    if (hidden_grad) multiply_add_wide(hidden_sum, logits, rows);
    if (weight_grad) multiply(grad_weight.narrow(0, first, count), logits.t(), hidden, false);
    if (bias_grad)
      grad_bias.narrow(0, first, count)
          .copy_(at::sum(logits, {0}, false, accumulate_dtype(hidden)));
  }
  if (hidden_grad) grad_hidden.copy_(hidden_sum);
}

}  // namespace

void check_targets(const Tensor& target, int64_t classes, int64_t ignore_index) {
  if (!target.is_cpu()) return;
  const int64_t* classes_of = target.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < target.numel(); ++i)
    require((classes_of[i] >= 0 && classes_of[i] < classes) || classes_of[i] == ignore_index,
            "linear_cross_entropy: target[", i, "]: expected a class from 0 to ", classes - 1,
            ", or ignore_index ", ignore_index, ", got ", classes_of[i]);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> linear_cross_entropy_forward(
    const Tensor& hidden, const Tensor& weight, const Optional& bias, const Tensor& target,
    int64_t ignore_index, double label_smoothing, double z_loss, double scale, bool entropy,
    bool hidden_grad) {
  // A tensor of its own each time: outputs of an operator do not share memory.
  const auto none = [&] { return at::empty({0}, wide(hidden)); };
  if (hidden.is_meta()) {
    const auto per_token = [&] { return at::empty_symint(target.sym_sizes(), wide(hidden)); };
    return {per_token(), entropy ? per_token() : none(),
            at::empty_symint({hidden.sym_size(0), kClassState}, wide(hidden)),
            hidden_grad ? at::empty_symint(hidden.sym_sizes(), wide(hidden)) : none()};
  }
  CrossEntropyRows p =
      make_rows(hidden, weight, target, ignore_index, label_smoothing, z_loss, scale);
  check_targets(target, p.classes, ignore_index);
  const Tensor one = at::ones({}, wide(hidden));
  p.reduce = true;
  p.entropy = entropy;
  p.shares = hidden_grad;
  p.seed = hidden_grad ? one.const_data_ptr() : nullptr;
  const int64_t tokens = hidden.size(0), step = classes_per_group(tokens, p.classes);
  const Tensor state = at::zeros({tokens, kClassState}, wide(hidden));
  const Tensor mean = hidden_grad ? at::zeros(hidden.sizes(), wide(hidden)) : none();
  const Tensor workspace = make_workspace(hidden, tokens, step);
  for (int64_t first = 0; tokens > 0 && first < p.classes; first += step) {
    const int64_t count = std::min(step, p.classes - first);
    const Tensor logits = workspace.narrow(1, 0, count), rows = weight.narrow(0, first, count);
    make_logits(hidden, rows, logits);
    p.first_class = first;
    p.resume = first > 0;
    const Tensor before = hidden_grad ? state.clone() : none();
    run_rows(p, logits, narrow(bias, first, count), target, state);
    if (hidden_grad) add_to_mean(mean, before, state, logits, rows);
  }
  return {losses(state, target, p), entropy ? entropies(state, target, p) : none(), state,
          hidden_grad ? hidden_gradient(mean, state, weight, target, p) : none()};
}

std::tuple<Tensor, Tensor, Tensor> linear_cross_entropy_backward(
    const Tensor& grad, const Tensor& state, const Tensor& hidden, const Tensor& weight,
    const Optional& bias, const Tensor& target, int64_t ignore_index, double label_smoothing,
    double z_loss, double scale, bool hidden_grad, bool weight_grad, bool bias_grad) {
  auto [grad_hidden, grad_weight, grad_bias] =
      make_gradients(hidden, weight, hidden_grad, weight_grad, bias_grad);
  if (hidden.is_meta()) return {grad_hidden, grad_weight, grad_bias};
  const CrossEntropyRows p =
      make_rows(hidden, weight, target, ignore_index, label_smoothing, z_loss, scale);
  fill_gradients(p, grad, state, hidden, weight, bias, target, grad_hidden, grad_weight, grad_bias,
                 hidden_grad, weight_grad, bias_grad);
  return {grad_hidden, grad_weight, grad_bias};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> linear_cross_entropy_with_gradients(
    const Tensor& hidden, const Tensor& weight, const Optional& bias, const Tensor& target,
    int64_t ignore_index, double label_smoothing, double z_loss, bool mean, bool hidden_grad,
    bool weight_grad, bool bias_grad) {
  auto [grad_hidden, grad_weight, grad_bias] =
      make_gradients(hidden, weight, hidden_grad, weight_grad, bias_grad);
  if (hidden.is_meta()) return {at::empty({}, wide(hidden)), grad_hidden, grad_weight, grad_bias};
  CrossEntropyRows p = make_rows(hidden, weight, target, ignore_index, label_smoothing, z_loss, 1);
  check_targets(target, p.classes, ignore_index);
  const Tensor counted = target.ne(ignore_index).sum().clamp_min(1).to(accumulate_dtype(hidden));
  const Tensor seed = mean ? counted.reciprocal() : at::ones({}, wide(hidden));
  p.reduce = true;
  p.seed = seed.const_data_ptr();
  const int64_t tokens = hidden.size(0), step = tokens_per_group(tokens);
  const Tensor state = at::empty({tokens, kClassState}, wide(hidden));
  const Tensor workspace = make_workspace(hidden, std::min(step, tokens), p.classes);
  const Tensor bias_sum = bias_grad ? at::zeros({p.classes}, wide(hidden)) : Tensor();
  if (tokens == 0 && weight_grad) grad_weight.zero_();
  for (int64_t first = 0; first < tokens; first += step) {
    const int64_t count = std::min(step, tokens - first);
    const Tensor rows = hidden.narrow(0, first, count);
    const Tensor logits = workspace.narrow(0, 0, count).narrow(1, 0, p.classes);
    make_logits(rows, weight, logits);
    run_rows(p, logits, bias, target.narrow(0, first, count), state.narrow(0, first, count));
    if (hidden_grad) multiply(grad_hidden.narrow(0, first, count), logits, weight, false);
    if (weight_grad) multiply(grad_weight, logits.t(), rows, first > 0);
    if (bias_grad) bias_sum.add_(at::sum(logits, {0}, false, bias_sum.scalar_type()));
  }
  if (bias_grad) grad_bias.copy_(bias_sum);
  return {losses(state, target, p).sum() * seed, grad_hidden, grad_weight, grad_bias};
}

Tensor class_states(const Tensor& hidden, const Tensor& weight, const Optional& bias,
                    const Tensor& target, int64_t ignore_index, double scale, bool entropy) {
  CrossEntropyRows p = make_rows(hidden, weight, target, ignore_index, 0, 0, scale);
  p.reduce = true;
  p.entropy = entropy;
  const int64_t tokens = hidden.size(0), step = classes_per_group(tokens, p.classes);
  const Tensor state = at::zeros({tokens, kClassState}, wide(hidden));
  const Tensor workspace = make_workspace(hidden, tokens, step);
  for (int64_t first = 0; tokens > 0 && first < p.classes; first += step) {
    const int64_t count = std::min(step, p.classes - first);
    const Tensor logits = workspace.narrow(1, 0, count);
    make_logits(hidden, weight.narrow(0, first, count), logits);
    p.first_class = first;
    p.resume = first > 0;
    run_rows(p, logits, narrow(bias, first, count), target, state);
  }
  return state;
}

Tensor merge_class_states(const Tensor& states) {
  const auto field = [&](int64_t i) { return states.select(2, i); };  // [ranges, N]
  const Tensor max = field(0).amax(0);
  // A range without a finite logit: its sum is 0, and so is what its maximum is multiplied with.
  const Tensor lower = (field(0) - max).masked_fill_(field(1) == 0, 0);
  const Tensor sums = field(1) * lower.exp();
  const Tensor weighted = (field(4) + lower * field(1)) * lower.exp();
  const Tensor missing = field(2).isnan();
  const Tensor target = field(2)
                            .masked_fill(missing, 0)
                            .sum(0)
                            .masked_fill_(missing.all(0), std::numeric_limits<double>::quiet_NaN());
  return at::stack({max, sums.sum(0), target, field(3).sum(0), weighted.sum(0)}, 1);
}

std::tuple<Tensor, Tensor> class_losses(const Tensor& state, const Tensor& target, int64_t classes,
                                        int64_t ignore_index, double label_smoothing,
                                        double z_loss) {
  CrossEntropyRows p{};
  p.classes = classes;
  p.ignore_index = ignore_index;
  p.label_smoothing = label_smoothing;
  p.z_loss = z_loss;
  return {losses(state, target, p), entropies(state, target, p)};
}

std::tuple<Tensor, Tensor, Tensor> class_gradients(const Tensor& grad, const Tensor& state,
                                                   const Tensor& hidden, const Tensor& weight,
                                                   const Optional& bias, const Tensor& target,
                                                   int64_t classes, int64_t ignore_index,
                                                   double label_smoothing, double z_loss,
                                                   double scale, bool hidden_grad, bool weight_grad,
                                                   bool bias_grad) {
  auto [grad_hidden, grad_weight, grad_bias] =
      make_gradients(hidden, weight, hidden_grad, weight_grad, bias_grad);
  CrossEntropyRows p =
      make_rows(hidden, weight, target, ignore_index, label_smoothing, z_loss, scale);
  p.classes = classes;
  fill_gradients(p, grad, state, hidden, weight, bias, target, grad_hidden, grad_weight, grad_bias,
                 hidden_grad, weight_grad, bias_grad);
  return {grad_hidden, grad_weight, grad_bias};
}

}  // namespace cosmos::ops::driver
