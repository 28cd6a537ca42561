#pragma once

// How pleasing clips are.

#include "modules/clip/aesthetic.h"
#include "modules/clip/vision_model.h"
#include "tools/curate/config.h"
#include "tools/curate/stages.h"

namespace cosmos::curate {

/// Scores every kept clip (scores.aesthetic): the smallest or mean score of its frames at
/// aesthetic.fps, each through CLIP's image tower and the head. Drops ("low aesthetic score") what
/// lies below aesthetic.min_score; without one it only scores. Clips that do not decode fail.
class Aesthetic : public ClipStage {
 public:
  /// Reads the models. Throws Error where they do not fit each other.
  Aesthetic(Store& store, const AestheticConfig& config);
  std::string name() const override { return "aesthetic"; }
  int64_t most_threads() const override { return 1; }  // one model

 private:
  bool wanted(const Segment& clip) override { return !clip.scores.contains("aesthetic"); }
  void process(Video& video, Segment& clip) override;
  /// Of each frame.
  Tensor frame_scores(const Video& video, const Segment& clip) const;

  AestheticConfig config_;
  std::shared_ptr<modules::ClipVisionModel> tower_;
  modules::ClipPixels pixels_;
  std::shared_ptr<modules::AestheticPredictor> head_;
};

}  // namespace cosmos::curate
