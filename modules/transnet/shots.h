#pragma once

// From frames to shots: overlapping windows over a video of any length.

#include <functional>
#include <utility>
#include <vector>

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// A score of every frame of a video that comes frame by frame; one window is in memory.
///
/// Windows of 100 frames begin 50 apart and give the scores of their middle 50. The first frame
/// stands 25 times more before the video, the last after it until the last window is whole, so
/// every frame is judged with 25 or more on both sides.
class ShotScorer {
 public:
  static constexpr int64_t kWindow = 100, kStep = 50, kMargin = 25;

  /// Scores of a window: [100, ...] -> [100]
  using Network = std::function<Tensor(const Tensor& window)>;
  explicit ShotScorer(Network network) : network_(std::move(network)) {}

  /// The next frame; all of one shape.
  void add(const Tensor& frame);
  /// After the last frame; scores() are complete then, one a frame that was added.
  void finish();
  const std::vector<float>& scores() const { return scores_; }

 private:
  void push(const Tensor& frame);

  Network network_;
  Tensor window_;  ///< [100, ...], the first `filled_` in use
  int64_t filled_ = 0;
  int64_t frames_ = 0;  ///< added
  Tensor last_;
  std::vector<float> scores_;
};

/// Frames first .. end - 1.
using FrameRange = std::pair<int64_t, int64_t>;

/// The shots between transitions, as TransNetV2's authors cut them: a frame scored above the
/// threshold is part of a transition; a shot ends with the first frame of one and the next begins
/// after its last. Everything is one shot where no frame, or every frame, is part of one.
std::vector<FrameRange> shots_of(const std::vector<float>& scores, double threshold);

}  // namespace cosmos::modules
