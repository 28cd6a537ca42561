#include "modules/metrics/frames.h"

#include <cmath>
#include <limits>

namespace cosmos::modules {
namespace {

void check_alike(const Tensor& a, const Tensor& b, int64_t rank) {
  require(a.dim() == rank && a.sizes() == b.sizes(), "clips to compare: expected two of the same ",
          rank, "-dimensional shape, got ", a.sizes(), " and ", b.sizes());
}

// Weighted means over an 11 x 11 window, valid positions only. x: [N, 1, H, W] float64.
Tensor window_mean(const Tensor& x) {
  constexpr int64_t kSize = 11;
  constexpr double kDeviation = 1.5;
  const Tensor offset = torch::arange(kSize, torch::kFloat64) - kSize / 2;
  Tensor weight = torch::exp(-offset.square() / (2 * kDeviation * kDeviation));
  weight = weight / weight.sum();
  const Tensor rows = torch::conv2d(x, weight.view({1, 1, kSize, 1}));
  return torch::conv2d(rows, weight.view({1, 1, 1, kSize}));
}

}  // namespace

Tensor psnr(const Tensor& a, const Tensor& b) {
  check_alike(a, b, 4);
  const Tensor error = (a.to(torch::kFloat64) - b.to(torch::kFloat64)).square().flatten(1).mean(1);
  return -10 * torch::log10(error);
}

Tensor ssim(const Tensor& a, const Tensor& b) {
  check_alike(a, b, 4);
  auto [T, C, H, W] = dims<4>(a);
  require(H >= 11 && W >= 11, "ssim: frames of ", H, " x ", W, " are smaller than its window");
  constexpr double kC1 = 0.01 * 0.01, kC2 = 0.03 * 0.03;
  const Tensor x = a.to(torch::kFloat64).reshape({T * C, 1, H, W});
  const Tensor y = b.to(torch::kFloat64).reshape({T * C, 1, H, W});
  const Tensor mx = window_mean(x), my = window_mean(y);
  const Tensor vx = window_mean(x * x) - mx * mx, vy = window_mean(y * y) - my * my,
               vxy = window_mean(x * y) - mx * my;
  const Tensor map =
      (2 * mx * my + kC1) * (2 * vxy + kC2) / ((mx * mx + my * my + kC1) * (vx + vy + kC2));
  return map.reshape({T, -1}).mean(1);
}

Tensor f1_score(const Tensor& a, const Tensor& b) {
  check_alike(a, b, 3);
  const Tensor x = a.to(torch::kBool), y = b.to(torch::kBool);
  const auto count = [](const Tensor& mask) { return mask.flatten(1).sum(1).to(torch::kFloat64); };
  const Tensor total = count(x) + count(y);
  return torch::where(total == 0, 1.0, 2 * count(x.logical_and(y)) / total.clamp_min(1));
}

Tensor scale_invariant_rmse(const Tensor& a, const Tensor& b) {
  check_alike(a, b, 3);
  const Tensor x = a.to(torch::kFloat64), y = b.to(torch::kFloat64);
  Tensor result = torch::empty({a.size(0)}, torch::kFloat64);
  for (int64_t t = 0; t < a.size(0); ++t) {
    const Tensor seen = (x[t] > 0).logical_and(y[t] > 0);
    const Tensor ratio = (x[t].masked_select(seen) / y[t].masked_select(seen)).log();
    result[t] = ratio.numel() > 0 ? ratio.std(/*unbiased=*/false)
                                  : torch::full({}, std::numeric_limits<double>::quiet_NaN());
  }
  return result;
}

Tensor mean_iou(const Tensor& a, const Tensor& b) {
  check_alike(a, b, 3);
  require(!a.is_floating_point() && !b.is_floating_point(), "labels must be whole numbers");
  Tensor result = torch::empty({a.size(0)}, torch::kFloat64);
  for (int64_t t = 0; t < a.size(0); ++t) {
    const Tensor classes =
        std::get<0>(torch::_unique(torch::cat({a[t].flatten(), b[t].flatten()})));
    double sum = 0;
    for (int64_t c = 0; c < classes.size(0); ++c) {
      const Tensor x = a[t] == classes[c], y = b[t] == classes[c];
      sum += x.logical_and(y).sum().item<double>() / x.logical_or(y).sum().item<double>();
    }
    result[t] = sum / static_cast<double>(classes.size(0));
  }
  return result;
}

Tensor colour_labels(const Tensor& frames) {
  auto [T, C, H, W] = dims<4>(frames);
  require(C == 3, "segmentation: expected RGB frames, got ", frames.sizes());
  const Tensor steps = (frames * 255 / 32).round().to(torch::kInt64);
  return steps.select(1, 0) * 81 + steps.select(1, 1) * 9 + steps.select(1, 2);
}

}  // namespace cosmos::modules
