// Haar patches against the plain formula in float64.
#include "ops/core/error.h"
#include "test/ops/haar/haar_cases.h"
#include "test/support/op_checks.h"

using namespace cosmos;
using namespace cosmos::test;

TEST_CASE("Haar patches equal the plain formula in every dtype and instruction set", "[ops]") {
  check_cases(haar_patch_cases());
  check_cases(haar_unpatch_cases());
}

TEST_CASE("Haar gradients equal central differences", "[ops]") {
  check_gradients(haar_patch_cases());
  check_gradients(haar_unpatch_cases());
}

TEST_CASE("Haar patches come back as the video", "[ops]") {
  for (const HaarShape& s : haar_shapes()) {
    if (s.benchmark) continue;
    INFO(s.what);
    const at::Tensor video = at::randn(s.video);
    const at::Tensor patches = ops::haar_patch(video, s.patch, s.first);
    CHECK(patches.is_contiguous());
    CHECK(at::allclose(ops::haar_unpatch(patches, s.patch, s.first), video, 1e-5, 1e-5));
  }
}

TEST_CASE("a constant video has only the lowest Haar band", "[ops]") {
  const at::Tensor patches = ops::haar_patch(at::full({1, 2, 5, 4, 4}, 3.0), 4, /*first=*/true);
  CHECK(patches.sizes() == at::IntArrayRef({1, 2, 1, 1, 128}));
  CHECK(at::equal(patches.narrow(-1, 0, 2), at::full({1, 2, 1, 1, 2}, 3.0)));
  CHECK(at::equal(patches.narrow(-1, 2, 126), at::zeros({1, 2, 1, 1, 126})));
}

TEST_CASE("Haar patches have second derivatives", "[ops]") {
  const at::Tensor x = at::randn({1, 1, 3, 2, 4}, at::kDouble).requires_grad_();
  const auto cubed = [](const at::Tensor& v) { return ops::haar_patch(v, 2, true).pow(3).sum(); };
  const at::Tensor slope =
      torch::autograd::grad({cubed(x)}, {x}, {}, std::nullopt, /*create_graph=*/true)[0];
  const at::Tensor curve = torch::autograd::grad({slope.pow(2).sum()}, {x})[0];
  const at::Tensor y = x.detach().clone().requires_grad_();
  const at::Tensor plain = ops::reference::haar_patch(y, 2, 1).pow(3).sum();
  const at::Tensor plain_slope =
      torch::autograd::grad({plain}, {y}, {}, std::nullopt, /*create_graph=*/true)[0];
  CHECK(at::allclose(curve, torch::autograd::grad({plain_slope.pow(2).sum()}, {y})[0]));
}

TEST_CASE("Haar patches refuse what does not fit, with expected and got", "[ops]") {
  const at::Tensor video = at::randn({1, 3, 5, 8, 8});
  CHECK_THROWS_WITH(ops::haar_patch(video, 4),
                    Catch::Contains("expected H and W") && Catch::Contains("[1, 3, 5, 8, 8]"));
  CHECK_THROWS_WITH(ops::haar_patch(video, 3, true),
                    Catch::Contains("expected a power of two, got 3"));
  CHECK_THROWS_WITH(ops::haar_patch(at::randn({1, 3, 4, 6, 8}), 4), Catch::Contains("H and W"));
  CHECK_THROWS_WITH(ops::haar_unpatch(at::randn({1, 1, 2, 2, 100}), 4),
                    Catch::Contains("a multiple of 64") && Catch::Contains("100"));
  CHECK_THROWS_AS(ops::haar_patch(video.to(at::kInt), 4, true), Error);
}
