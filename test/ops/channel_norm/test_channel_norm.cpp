// RMS norm over channels with SiLU against the plain formula in float64.
#include "ops/core/error.h"
#include "test/ops/channel_norm/channel_norm_cases.h"
#include "test/support/op_checks.h"

using namespace cosmos;
using namespace cosmos::test;

TEST_CASE("channel norm equals the plain formula in every dtype and instruction set", "[ops]") {
  check_cases(channel_norm_cases());
}

TEST_CASE("channel norm gradients equal central differences", "[ops]") {
  check_gradients(channel_norm_cases());
}

TEST_CASE("channel norm keeps the layout of its input, forward and backward", "[ops]") {
  const auto channels_last = at::MemoryFormat::ChannelsLast3d;
  const at::Tensor x =
      at::randn({2, 8, 3, 4, 5}).contiguous(channels_last).detach().requires_grad_();
  const at::Tensor out = ops::rms_norm_silu(x, at::ones({8}));
  CHECK(out.is_contiguous(channels_last));
  // The gradient comes in the other layout.
  const auto grads = torch::autograd::grad({out}, {x}, {at::randn({2, 8, 3, 4, 5})});
  CHECK(grads[0].is_contiguous(channels_last));
  CHECK(ops::rms_norm_silu(x.contiguous(), at::ones({8})).is_contiguous());
}

TEST_CASE("channel norm gives the same numbers in both layouts", "[ops]") {
  torch::manual_seed(2);
  const at::Tensor x = at::randn({2, 40, 7, 33}), gamma = at::randn({40});
  const at::Tensor planes = ops::rms_norm_silu(x, gamma);
  const at::Tensor rows = ops::rms_norm_silu(x.contiguous(at::MemoryFormat::ChannelsLast), gamma);
  CHECK(at::allclose(planes, rows, 1e-5, 1e-6));
}

TEST_CASE("SiLU far from zero neither overflows nor loses NaN", "[ops]") {
  // A norm of one element gives +-1, so gamma is what the activation sees.
  const at::Tensor gamma = at::tensor({-200.f, -88.f, -20.f, 20.f, 88.f, 200.f});
  for (const float gain : {1.f, 1e30f}) {
    const at::Tensor x = at::ones({1, 6, 1, 1}).requires_grad_();
    const at::Tensor out = ops::rms_norm_silu(x, gamma * gain);
    CHECK(at::allclose(out, at::silu(gamma * gain).view({1, 6, 1, 1}), 1e-5, 1e-6));
    CHECK(at::isfinite(torch::autograd::grad({out.sum()}, {x})[0]).all().item<bool>());
  }
  const at::Tensor nan = at::full({1, 6, 1, 1}, std::numeric_limits<float>::quiet_NaN());
  CHECK(at::isnan(ops::rms_norm_silu(nan, gamma)).all().item<bool>());
}

TEST_CASE("channel norm gradients have the same bits for any number of threads", "[ops]") {
  torch::manual_seed(5);
  const int before = at::get_num_threads();
  for (const bool rows : {false, true}) {
    at::Tensor x = at::randn({2, 32, 5, 24, 30});
    if (rows) x = x.contiguous(at::MemoryFormat::ChannelsLast3d);
    x.requires_grad_();
    const at::Tensor gamma = at::randn({32}).requires_grad_();
    const auto grads = [&](int threads) {
      at::set_num_threads(threads);
      return torch::autograd::grad({ops::rms_norm_silu(x, gamma).pow(2).sum()}, {x, gamma});
    };
    const auto one = grads(1), two = grads(2);
    CHECK(at::equal(one[0], two[0]));
    CHECK(at::equal(one[1], two[1]));
  }
  at::set_num_threads(before);
}

TEST_CASE("channel norm refuses what does not fit, with expected and got", "[ops]") {
  const at::Tensor x = at::randn({2, 6, 4, 8});
  CHECK_THROWS_WITH(ops::rms_norm_silu(x, at::ones({8})),
                    Catch::Contains("gamma: expected [6]") && Catch::Contains("got float32 [8]"));
  CHECK_THROWS_WITH(ops::rms_norm_silu(at::randn({6}), at::ones({6})),
                    Catch::Contains("expected [B, C, ...]"));
  CHECK_THROWS_AS(ops::rms_norm_silu(x.to(at::kInt), at::ones({6})), Error);
}
