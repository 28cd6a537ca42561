#include "modules/tokenizer/linear_baseline.h"

#include <algorithm>

namespace cosmos::modules {

LinearBaseline::LinearBaseline(int64_t time, int64_t space, int64_t components)
    : time_(time), space_(space), components_(components) {}

// [B, C, T, H, W] -> [rows, C time space²]
Tensor LinearBaseline::patches(const Tensor& video) const {
  const Tensor whole =
      torch::cat({video.narrow(2, 0, 1).expand({-1, -1, time_ - 1, -1, -1}), video}, 2);
  auto [B, C, T, H, W] = dims<5>(whole, "video");
  return whole.reshape({B, C, T / time_, time_, H / space_, space_, W / space_, space_})
      .permute({0, 2, 4, 6, 1, 3, 5, 7})
      .reshape({-1, C * time_ * space_ * space_});
}

void LinearBaseline::add(const Tensor& video) {
  const Tensor rows = patches(video.to(torch::kFloat32));
  if (count_ == 0) {
    sum_ = torch::zeros({rows.size(1)}, torch::kFloat64);
    products_ = torch::zeros({rows.size(1), rows.size(1)}, torch::kFloat64);
  }
  count_ += rows.size(0);
  sum_ += rows.sum(0, false, torch::kFloat64);
  products_ += torch::mm(rows.t(), rows).to(torch::kFloat64);
  basis_ = Tensor();
}

Tensor LinearBaseline::reconstruct(const Tensor& video) {
  require(count_ > 0, "linear baseline: no clips to fit it to");
  if (!basis_.defined()) {
    const Tensor mean = sum_ / static_cast<double>(count_);
    const Tensor covariance = products_ / static_cast<double>(count_) - mean.outer(mean);
    const Tensor vectors = std::get<1>(torch::linalg_eigh(covariance));  // ascending
    const int64_t kept = std::min(components_, vectors.size(1));
    basis_ = vectors.narrow(1, vectors.size(1) - kept, kept).to(torch::kFloat32);
    mean_ = mean.to(torch::kFloat32);
  }
  const Tensor rows = patches(video.to(torch::kFloat32)) - mean_;
  const Tensor back = torch::mm(torch::mm(rows, basis_), basis_.t()) + mean_;
  auto [B, C, T, H, W] = dims<5>(video, "video");
  const int64_t t = (T + time_ - 1) / time_;
  return back.view({B, t, H / space_, W / space_, C, time_, space_, space_})
      .permute({0, 4, 1, 5, 2, 6, 3, 7})
      .reshape({B, C, t * time_, H, W})
      .narrow(2, time_ - 1, T);
}

}  // namespace cosmos::modules
