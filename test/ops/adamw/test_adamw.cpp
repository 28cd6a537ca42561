// The one-pass AdamW against LibTorch's own and against the plain formula.
#include "ops/adamw/adamw.h"
#include "ops/core/error.h"
#include "test/support/op_checks.h"  // after torch: both define CHECK

using namespace cosmos;
using namespace cosmos::test;
using ops::AdamWOptions;
using ops::AdamWState;

namespace {

/// Odd sizes, one longer than a unit of work, one empty.
AdamWState random_state(at::ScalarType dtype, bool master, bool ema) {
  const at::ScalarType wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  AdamWState s;
  for (const std::vector<int64_t>& shape :
       std::vector<std::vector<int64_t>>{{1}, {7, 3}, {70001}, {0, 4}, {33, 65}}) {
    const at::Tensor w = at::randn(shape, wide);
    s.params.push_back(w.to(dtype).clone());
    s.grads.push_back(at::randn(shape, wide).to(dtype));
    s.exp_avg.push_back(at::randn(shape, wide) * 0.1);
    s.exp_avg_sq.push_back(at::rand(shape, wide));
    s.step.push_back(at::full({}, 3.0));
    const bool own = dtype == wide && shape.size() == 1;  // some params are their own masters
    if (master) s.master.push_back(own ? s.params.back() : w.clone());
    if (ema) s.ema.push_back(w.clone());
  }
  return s;
}

AdamWState cloned(const AdamWState& s) {
  AdamWState copy = s;
  for (auto* list :
       {&copy.params, &copy.exp_avg, &copy.exp_avg_sq, &copy.step, &copy.master, &copy.ema})
    for (at::Tensor& x : *list) x = x.clone();
  return copy;
}

std::string difference(const AdamWState& a, const AdamWState& b, Tolerance wide, Tolerance narrow) {
  for (std::size_t i = 0; i < a.params.size(); ++i) {
    std::string wrong = mismatch(a.params[i], b.params[i], narrow);
    wrong += mismatch(a.exp_avg[i], b.exp_avg[i], wide);
    wrong += mismatch(a.exp_avg_sq[i], b.exp_avg_sq[i], wide);
    wrong += mismatch(a.step[i], b.step[i], {0, 0});
    if (!a.master.empty()) wrong += mismatch(a.master[i], b.master[i], wide);
    if (!a.ema.empty()) wrong += mismatch(a.ema[i], b.ema[i], wide);
    if (!wrong.empty()) return "tensor " + std::to_string(i) + ": " + wrong;
  }
  return "";
}

constexpr AdamWOptions kOptions{
    .lr = 3e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-7, .weight_decay = 0.1, .ema_decay = 0.99};

}  // namespace

TEST_CASE("AdamW equals the plain formula, with masters, averages and clipping", "[ops]") {
  torch::manual_seed(1);
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const bool extra : {false, true}) {
      AdamWState ours = random_state(dtype, extra, extra), plain = cloned(ours);
      const at::Tensor clip = at::scalar_tensor(0.37);
      if (extra) ours.grads[2] = plain.grads[2] = ours.grads[2].to(ours.exp_avg[2].scalar_type());
      for (int i = 0; i < 3; ++i) {
        ops::adamw_step(ours, kOptions, extra ? clip : at::Tensor());
        ops::reference::adamw_step(plain, kOptions, extra ? clip : at::Tensor());
      }
      INFO(dtype << ", masters and averages: " << extra);
      const Tolerance wide = dtype == at::kDouble ? Tolerance{1e-13, 1e-15} : Tolerance{3e-7, 1e-8};
      // A rounding tie may fall either way: one unit of the narrow type in a few elements.
      const Tolerance narrow = dtype == at::kBFloat16 ? Tolerance{1e-3, 0}
                               : dtype == at::kHalf   ? Tolerance{1e-4, 0}
                                                      : wide;
      CHECK(difference(ours, plain, wide, narrow) == "");
    }
  }
}

TEST_CASE("AdamW equals torch's fused AdamW within an ulp", "[ops]") {
  torch::manual_seed(2);
  AdamWState ours = random_state(at::kFloat, false, false), theirs = cloned(ours);
  std::vector<at::Tensor> steps, none;
  for (std::size_t i = 0; i < ours.params.size(); ++i) steps.push_back(at::ones({}) * 4);
  ops::adamw_step(ours, kOptions);
  at::_fused_adamw_(theirs.params, theirs.grads, theirs.exp_avg, theirs.exp_avg_sq, none, steps,
                    kOptions.lr, kOptions.beta1, kOptions.beta2, kOptions.weight_decay,
                    kOptions.eps, /*amsgrad=*/false, /*maximize=*/false);
  for (std::size_t i = 0; i < ours.params.size(); ++i) {
    const at::Tensor ulp = theirs.params[i].abs() * 1.2e-7 + 1e-9;
    CHECK(((ours.params[i] - theirs.params[i]).abs() <= ulp).all().item<bool>());
  }
}

TEST_CASE("AdamW leaves everything as it was when the gradient is not finite", "[ops]") {
  AdamWState s = random_state(at::kBFloat16, true, true);
  const AdamWState before = cloned(s);
  s.grads[2][5] = NAN;
  const at::Tensor clip = ops::clip_coefficient(ops::grad_norm(s.grads), 1.0);
  CHECK(std::isnan(clip.item<double>()));
  ops::adamw_step(s, kOptions, clip);
  CHECK(difference(s, before, {0, 0}, {0, 0}) == "");
  s.grads[2][5] = INFINITY;
  CHECK(std::isnan(ops::clip_coefficient(ops::grad_norm(s.grads), 1.0).item<double>()));
}

TEST_CASE("the gradient norm is exact, skips missing gradients and repeats its bits", "[ops]") {
  torch::manual_seed(4);
  const AdamWState s = random_state(at::kFloat, false, false);
  std::vector<at::Tensor> grads = s.grads;
  grads.emplace_back();
  const at::Tensor norm = ops::grad_norm(grads);
  CHECK(mismatch(norm, ops::reference::grad_norm(grads), {2e-7, 0}) == "");
  CHECK(ops::clip_coefficient(norm, 1e9).item<float>() == 1.0f);
  CHECK(ops::clip_coefficient(norm, 1.0).item<double>() == Approx(1 / norm.item<double>()));
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor again = ops::grad_norm(grads);
  at::set_num_threads(before);
  CHECK(at::equal(norm, again));
  CHECK(ops::grad_norm({}).item<float>() == 0.0f);
}

TEST_CASE("AdamW refuses what does not fit, with the index", "[ops]") {
  AdamWState s = random_state(at::kFloat, false, false);
  AdamWState wrong = s;
  wrong.step[4] = at::ones({}, at::kLong);
  CHECK_THROWS_WITH(
      ops::adamw_step(wrong, kOptions),
      Catch::Contains("step[4]: expected one float32 number") && Catch::Contains("got Long"));
  wrong = s;
  wrong.grads[1] = at::randn({7, 3}).to(at::kBFloat16);
  CHECK_THROWS_WITH(ops::adamw_step(wrong, kOptions),
                    Catch::Contains("grads[1]") && Catch::Contains("got bfloat16"));
  wrong = s;
  wrong.exp_avg.pop_back();
  CHECK_THROWS_WITH(ops::adamw_step(wrong, kOptions), Catch::Contains("expected 5 tensors"));
  wrong = s;
  wrong.params[1] = at::randn({3, 7}).t();
  CHECK_THROWS_WITH(ops::adamw_step(wrong, kOptions), Catch::Contains("not contiguous"));
}
