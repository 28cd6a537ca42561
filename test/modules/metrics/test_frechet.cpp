// FID and FVD: the distance against NumPy by the definition, networks as TorchScript files.

#include <catch2/catch.hpp>
#include <fstream>
#include <torch/script.h>

#include "modules/metrics/feature_network.h"
#include "modules/metrics/frechet.h"
#include "test/support/temp_folder.h"

using namespace cosmos;
using namespace cosmos::modules;
using Catch::Matchers::Contains;

namespace {

Tensor count(int64_t rows, int64_t columns) {
  return torch::arange(rows * columns, torch::kFloat64).view({rows, columns});
}

Tensor row(std::vector<double> numbers) {
  return torch::tensor(numbers, torch::kFloat64);
}

}  // namespace

TEST_CASE("the Fréchet distance is NumPy's", "[metrics][fid]") {
  // NumPy: np.cov, and the square roots of the eigenvalues of S_a S_b.
  const Tensor a = (count(10, 3) * 1.7).sin() + row({0, 1, 2});
  const Tensor b = (count(8, 3) * 0.9).cos() * row({1, 2, 0.5});
  CHECK(frechet_distance(a, b) == Approx(6.17418502205798).epsilon(1e-9));
  CHECK(frechet_distance(b, a) == Approx(6.17418502205798).epsilon(1e-7));
  CHECK(frechet_distance(a, a) == Approx(0).margin(1e-9));
  // Fewer samples than features.
  CHECK(frechet_distance((count(3, 5) * 1.1).sin(), (count(3, 5) * 0.7).cos()) ==
        Approx(2.8062281971422633).epsilon(1e-6));
  CHECK_THROWS_WITH(frechet_distance(a.slice(0, 0, 1), b), Contains("two samples or more"));
  CHECK_THROWS_WITH(frechet_distance(a, b.slice(1, 0, 2)), Contains("3 features"));
  CHECK_THROWS_WITH(frechet_distance(a / 0., b), Contains("not finite"));
}

TEST_CASE("feature networks are TorchScript files and told what they know", "[metrics][fid]") {
  const test::TempFolder dir;
  torch::jit::Module plain("Plain"), known("Known");
  plain.define("def forward(self, x):\n  return x.mean([2, 3])\n");
  plain.save((dir / "plain.pt").string());
  known.define(
      "def forward(self, x, rescale: bool = False, return_features: bool = False, "
      "return_lpips: bool = False):\n"
      "  if rescale:\n    x = x / 255\n"
      "  if return_lpips:\n    return x.amax([2, 3])\n"
      "  if return_features:\n    return x.flatten(2).mean(2)\n"
      "  return x.sum()\n");
  known.save((dir / "known.pt").string());
  const Tensor pictures = torch::rand({2, 3, 4, 5}) * 255, clips = torch::rand({2, 3, 6, 4, 5});
  CHECK(FeatureNetwork(dir / "plain.pt").features(pictures).equal(pictures.mean({2, 3})));
  FeatureNetwork network(dir / "known.pt");
  CHECK(network.features(pictures).equal(pictures.flatten(2).mean(2)));
  CHECK(network.features(clips).equal((clips / 255).flatten(2).mean(2)));
  CHECK(network.lpips_features(pictures).equal(pictures.amax({2, 3})));
  CHECK_THROWS_WITH(FeatureNetwork(dir / "plain.pt").lpips_features(pictures),
                    Contains("plain.pt: ") && Contains("no return_lpips"));
  std::ofstream(dir / "text.pt") << "no network";
  CHECK_THROWS_WITH(FeatureNetwork(dir / "text.pt"), Contains("expected a TorchScript file"));
  CHECK_THROWS_WITH(FeatureNetwork(dir / "none.pt"), Contains("no such file"));
}
