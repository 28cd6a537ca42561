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
  for (auto* list : {&copy.params, &copy.exp_avg, &copy.exp_avg_sq, &copy.step, &copy.master,
                     &copy.ema, &copy.exp_avg_scale, &copy.exp_avg_sq_scale})
    for (at::Tensor& x : *list) x = x.clone();
  return copy;
}

/// The same with 8-bit moments.
AdamWState coded(AdamWState s) {
  for (std::size_t i = 0; i < s.params.size(); ++i) {
    const ops::MomentCodes first = ops::encode_moment(s.exp_avg[i], false);
    const ops::MomentCodes second = ops::encode_moment(s.exp_avg_sq[i], true);
    s.exp_avg[i] = first.codes;
    s.exp_avg_sq[i] = second.codes;
    s.exp_avg_scale.push_back(first.scale);
    s.exp_avg_sq_scale.push_back(second.scale);
  }
  return s;
}

/// Share of the codes that differ, 1 where any differs by more than one.
double differing(const at::Tensor& a, const at::Tensor& b) {
  if (a.numel() == 0) return 0;
  const at::Tensor steps = (a.to(at::kInt) - b.to(at::kInt)).abs();
  return steps.max().item<int>() > 1 ? 1 : steps.to(at::kDouble).mean().item<double>();
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

TEST_CASE("AdamW with 8-bit moments equals the plain formula", "[ops]") {
  torch::manual_seed(2);
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf})
    for (const bool extra : {false, true}) {
      AdamWState ours = coded(random_state(dtype, extra, extra)), plain = cloned(ours);
      const at::Tensor clip = at::scalar_tensor(0.37);
      ops::adamw_step(ours, kOptions, clip);
      ops::reference::adamw_step(plain, kOptions, clip);
      for (std::size_t i = 0; i < ours.params.size(); ++i) {
        INFO(dtype << ", masters and averages: " << extra << ", tensor " << i);
        // Where a value lies on the border of two codes the last bit decides.
        CHECK(differing(ours.exp_avg[i], plain.exp_avg[i]) < 1e-3);
        CHECK(differing(ours.exp_avg_sq[i], plain.exp_avg_sq[i]) < 1e-3);
        CHECK(mismatch(ours.exp_avg_scale[i], plain.exp_avg_scale[i], {1e-6, 1e-12}) == "");
        CHECK(mismatch(ours.exp_avg_sq_scale[i], plain.exp_avg_sq_scale[i], {1e-6, 1e-12}) == "");
        const at::Tensor& got = extra ? ours.master[i] : ours.params[i];
        CHECK(mismatch(got, extra ? plain.master[i] : plain.params[i],
                       dtype == at::kFloat || extra ? Tolerance{1e-6, 1e-7} : tolerance(dtype)) ==
              "");
      }
    }
}

TEST_CASE("decoded 8-bit moments give the same codes again", "[ops]") {
  torch::manual_seed(3);
  for (const bool second : {false, true}) {
    at::Tensor x = at::randn({1000}).pow(3);
    x[7] = 0;
    const ops::MomentCodes once = ops::encode_moment(second ? x.square() : x, second);
    const ops::MomentCodes twice = ops::encode_moment(ops::decode_moment(once), second);
    CHECK(at::equal(once.codes, twice.codes));
    CHECK(at::equal(once.scale, twice.scale));
  }
}

#ifndef COSMOS_CUDA_EMULATION  // thousands of steps
TEST_CASE("8-bit moments follow slow averages and train as float32 ones do", "[ops]") {
  torch::manual_seed(4);
  const int64_t size = 1000;
  const at::Tensor magnitude = at::exp(at::randn({size})), target = at::randn({size});
  const auto make = [&] {
    AdamWState s;
    s.params = {at::zeros({size})};
    s.grads = {at::zeros({size})};
    s.exp_avg = {at::zeros({size})};
    s.exp_avg_sq = {at::zeros({size})};
    s.step = {at::zeros({})};
    return s;
  };
  AdamWState wide = make(), narrow = coded(make());
  for (int i = 0; i < 3000; ++i) {
    const at::Tensor noise = 0.3 * at::randn({size});
    for (AdamWState* s : {&wide, &narrow}) {
      s->grads[0] = (s->params[0] - target + noise) * magnitude;
      ops::adamw_step(*s, {.lr = 3e-3, .beta2 = 0.999, .weight_decay = 0}, {});
    }
  }
  const at::Tensor v = ops::decode_moment({narrow.exp_avg_sq[0], narrow.exp_avg_sq_scale[0]});
  const double ratio = (v.sqrt() / wide.exp_avg_sq[0].sqrt()).mean().item<double>();
  const auto error = [&](const AdamWState& s) {
    return (s.params[0] - target).square().mean().item<double>();
  };
  INFO("sqrt(v) " << ratio << " of float32's; error " << error(narrow) << ", float32 "
                  << error(wide));
  CHECK(std::abs(ratio - 1) < 0.02);
  CHECK(error(narrow) < 1.2 * error(wide));
}
#endif

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
