#pragma once

// Where tokens stand in time, height and width (multimodal RoPE, Qwen2-VL).
//
// Text advances on all three axes together. The tokens of an image or a video stand on the grid of
// merged patches that begins at the next position; text goes on behind the larger of the grid's
// height and width (transformers 5: not behind its length in time, as versions before did).

#include <optional>

#include "modules/vlm/vision_plan.h"

namespace cosmos::modules {

/// What mm_token_type_ids says of a token.
enum TokenType : int64_t { kTextToken = 0, kImageToken = 1, kVideoToken = 2 };

/// Grids that the positions walk through, in the order of their tokens.
struct PositionGrids {
  Grids images, videos;
  std::vector<double> video_interval;  ///< temporal positions from one frame of a video to the next
  std::size_t next_image = 0, next_video = 0;
};

/// The grids of videos as Qwen3-VL's positions see them: every frame stands on its own, behind a
/// time stamp in text.
Grids split_frames(const Grids& grids);

/// Positions of one sequence without padding: int64 [3, L]. Each stretch of image or video tokens
/// takes the next grid. Throws Error where a stretch and its grid differ in tokens, or grids run
/// out.
Tensor sequence_positions(const std::vector<int64_t>& token_types, int64_t merge,
                          PositionGrids& grids);

}  // namespace cosmos::modules
