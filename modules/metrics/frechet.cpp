#include "modules/metrics/frechet.h"

namespace cosmos::modules {
namespace {

Tensor covariance(const Tensor& features) {
  const Tensor centered = features - features.mean(0);
  return centered.t().matmul(centered) / static_cast<double>(features.size(0) - 1);
}

Tensor checked(const Tensor& features, const char* name) {
  require(features.dim() == 2 && features.size(0) >= 2, "Fréchet distance: ", name,
          ": expected [two samples or more, features], got ", features.sizes());
  const Tensor x = features.to(torch::kCPU, torch::kFloat64);
  require(x.isfinite().all().item<bool>(), "Fréchet distance: ", name,
          ": features that are not finite");
  return x;
}

}  // namespace

double frechet_distance(const Tensor& a, const Tensor& b) {
  const Tensor x = checked(a, "a"), y = checked(b, "b");
  require(x.size(1) == y.size(1), "Fréchet distance: ", x.size(1), " features, the others have ",
          y.size(1));
  const Tensor of_x = covariance(x), of_y = covariance(y);
  // S_a S_b has the eigenvalues of R S_b R, R R = S_a, which is symmetric.
  const auto [values, vectors] = torch::linalg_eigh(of_x);
  const Tensor root = (vectors * values.clamp_min(0).sqrt()).matmul(vectors.t());
  const Tensor product = root.matmul(of_y).matmul(root);
  const Tensor roots = torch::linalg_eigvalsh((product + product.t()) / 2).clamp_min(0).sqrt();
  const Tensor distance =
      (x.mean(0) - y.mean(0)).square().sum() + of_x.trace() + of_y.trace() - 2 * roots.sum();
  return std::max(0.0, distance.item<double>());
}

}  // namespace cosmos::modules
