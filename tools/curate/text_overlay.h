#pragma once

// Text that was burnt into a clip: titles, subtitles, banners.

#include <optional>

#include "tools/curate/config.h"
#include "tools/curate/stages.h"

namespace cosmos::curate {

/// Fraction of the picture that static text covers, 0 to 1: the dense strokes of letters that stand
/// still while the picture moves. A place counts where, of the 12 x 36 pixels around it, at least
/// 4 % are edges from dark to light and 4 % from light to dark (24 levels over two pixels along a
/// row) that all frames have. None where more than half of all edges stand still: the camera does,
/// and what is text cannot be told from what is there.
/// frames: uint8 RGB [n, H, W, 3], n >= 2, the shorter side about 270 pixels
std::optional<double> static_text(const Tensor& frames);

/// Scores every kept clip (scores.text; null: cannot be told) by frames at 2 a second, 16 at most,
/// and drops ("text") what is above filter.max_text. Clips that do not decode fail.
class TextOverlay : public ClipStage {
 public:
  TextOverlay(Store& store, double max_text)
      : ClipStage(store, "cannot be searched for text"), max_text_(max_text) {}
  std::string name() const override { return "text"; }

 private:
  bool wanted(const Segment& clip) override { return !clip.scores.contains("text"); }
  void process(Video& video, Segment& clip) override;

  double max_text_;
};

}  // namespace cosmos::curate
