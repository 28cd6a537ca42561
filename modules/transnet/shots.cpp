#include "modules/transnet/shots.h"

namespace cosmos::modules {

void ShotScorer::add(const Tensor& frame) {
  if (frames_++ == 0)
    for (int64_t i = 0; i < kMargin; ++i) push(frame);
  push(frame);
  last_ = frame;
}

void ShotScorer::push(const Tensor& frame) {
  if (!window_.defined()) {
    std::vector<int64_t> shape = {kWindow};
    shape.insert(shape.end(), frame.sizes().begin(), frame.sizes().end());
    window_ = torch::empty(shape, frame.options());
  }
  require(frame.sizes() == window_.sizes().slice(1), "a frame of shape ", frame.sizes(),
          " among frames of shape ", window_.sizes().slice(1));
  window_[filled_++].copy_(frame);
  if (filled_ < kWindow) return;
  const Tensor scores = network_(window_).to(torch::kFloat32).contiguous();
  require(scores.dim() == 1 && scores.size(0) == kWindow, "expected ", kWindow, " scores, got ",
          scores.sizes());
  const float* middle = scores.data_ptr<float>() + kMargin;
  scores_.insert(scores_.end(), middle, middle + kStep);
  window_.slice(0, 0, kWindow - kStep).copy_(window_.slice(0, kStep).clone());
  filled_ = kWindow - kStep;
}

void ShotScorer::finish() {
  while (static_cast<int64_t>(scores_.size()) < frames_) push(last_);
  scores_.resize(static_cast<std::size_t>(frames_));
}

std::vector<FrameRange> shots_of(const std::vector<float>& scores, double threshold) {
  const auto count = static_cast<int64_t>(scores.size());
  std::vector<FrameRange> shots;
  int64_t start = 0;
  bool before = false;  // whether the frame before is part of a transition
  for (int64_t i = 0; i < count; ++i) {
    const bool now = scores[static_cast<std::size_t>(i)] > threshold;
    if (before && !now) start = i;
    if (!before && now && i > 0) shots.emplace_back(start, i + 1);
    before = now;
  }
  if (count > 0 && !before) shots.emplace_back(start, count);
  if (count > 0 && shots.empty()) shots.emplace_back(0, count);
  return shots;
}

}  // namespace cosmos::modules
