// Causal convolution against one 3-D convolution of the padded clip in float64.
#include "ops/core/error.h"
#include "ops/core/peak_memory.h"
#include "test/ops/causal_conv/causal_conv_cases.h"
#include "test/support/op_checks.h"

using namespace cosmos;
using namespace cosmos::test;

TEST_CASE("causal convolution equals that of the padded clip in every dtype", "[ops]") {
  check_cases(causal_conv_cases());
}

TEST_CASE("causal convolution gradients equal central differences", "[ops]") {
  check_gradients(causal_conv_cases());
}

TEST_CASE("causal convolution does not see later frames", "[ops]") {
  torch::manual_seed(1);
  const at::Tensor x = at::randn({1, 6, 4, 4, 3}), weight = at::randn({2, 3, 3, 3, 3});
  at::Tensor changed = x.clone();
  changed.narrow(1, 4, 2).normal_();
  const auto y = [&](const at::Tensor& clip) {
    return ops::causal_conv(clip, {}, weight, {}, {1, 1, 1}, 1, 2, true);
  };
  CHECK(at::equal(y(x).narrow(1, 0, 4), y(changed).narrow(1, 0, 4)));
  CHECK(!at::equal(y(x).narrow(1, 4, 1), y(changed).narrow(1, 4, 1)));
}

TEST_CASE("a causal convolution of chunks equals that of the clip", "[ops]") {
  torch::manual_seed(2);
  const at::Tensor x = at::randn({2, 7, 4, 4, 3}), weight = at::randn({2, 3, 3, 3, 3});
  const auto conv = [&](const at::Tensor& clip, const std::optional<at::Tensor>& past) {
    return ops::causal_conv(clip, past, weight, {}, {1, 1, 1}, 1, 2, false);
  };
  const at::Tensor head = conv(x.narrow(1, 0, 3), {});
  const at::Tensor tail = conv(x.narrow(1, 3, 4), x.narrow(1, 1, 2));
  CHECK(at::allclose(at::cat({head, tail}, 1), conv(x, {}), 1e-5, 1e-5));
}

TEST_CASE("no frame comes out of fewer than the kernel's", "[ops]") {
  const at::Tensor y = ops::causal_conv(at::ones({1, 1, 2, 2, 3}), {}, at::ones({5, 3, 4, 1, 1}),
                                        {}, {1, 1, 1}, 0, 2);
  CHECK(y.sizes() == at::IntArrayRef({1, 0, 2, 2, 5}));
}

TEST_CASE("causal convolution keeps no padded clip", "[ops]") {
  torch::manual_seed(3);
  const at::Tensor x = at::randn({1, 16, 16, 16, 64}).requires_grad_();
  const at::Tensor weight = at::randn({64, 64, 3, 1, 1}).requires_grad_();
  const auto step = [&](const auto& conv) {
    return peak_bytes([&] {
      const at::Tensor y = conv(x, std::nullopt, weight, std::nullopt, {1, 1, 1}, 0, 2, true);
      torch::autograd::grad({y}, {x, weight}, {y.detach()});
    });
  };
  const auto clip = static_cast<int64_t>(x.nbytes());
  const int64_t ours = step(ops::causal_conv), plain = step(ops::reference::causal_conv);
  INFO(ours << " bytes, plain formula " << plain << ", clip " << clip);
  CHECK(ours < 2.5 * static_cast<double>(clip));  // the output and the gradient of the clip
  CHECK(plain > 3 * clip);
}

TEST_CASE("causal convolution refuses what does not fit, with expected and got", "[ops]") {
  const at::Tensor x = at::ones({1, 2, 4, 4, 3}), weight = at::ones({2, 3, 3, 3, 3});
  const auto conv = [&](const at::Tensor& clip, std::optional<at::Tensor> past, const at::Tensor& w,
                        at::IntArrayRef stride) {
    return ops::causal_conv(clip, past, w, {}, stride, 1, 2);
  };
  CHECK_THROWS_WITH(conv(x[0], {}, weight, {1, 1, 1}), Catch::Contains("expected [B, T, H, W, C]"));
  CHECK_THROWS_WITH(conv(x, {}, at::ones({2, 4, 3, 3, 3}), {1, 1, 1}),
                    Catch::Contains("weight: expected [O, 3, kt, kh, kw]"));
  CHECK_THROWS_WITH(conv(x, at::ones({1, 2, 4, 5, 3}), weight, {1, 1, 1}),
                    Catch::Contains("past: expected the batch and frame size of x"));
  CHECK_THROWS_WITH(conv(x, {}, weight, {1, 0, 1}), Catch::Contains("expected three numbers"));
  CHECK_THROWS_WITH(conv(x, {}, weight.to(at::kDouble), {1, 1, 1}), Catch::Contains("weight"));
  CHECK_THROWS_WITH(conv(x, {}, at::ones({2, 3, 3, 9, 3}), {1, 1, 1}),
                    Catch::Contains("is larger than a padded frame"));
}
