#pragma once

// Sequences of one model call: a prompt, a training example; text with its images and videos.

#include "modules/vlm/language_model.h"

namespace cosmos::modules {

/// Tokens with what their image and video tokens stand for, as the processor makes them. Undefined
/// tensors are left out.
struct Sequence {
  Tensor input_ids;  ///< int64 [L]
  Tensor pixel_values = {}, image_grid_thw = {};
  Tensor pixel_values_videos = {}, video_grid_thw = {};
  Tensor second_per_grid_ts = {};
  /// Tokens from here on are text whatever they are: a model may write the token that stands for an
  /// image. -1: none.
  int64_t answer_begin = -1;

  int64_t length() const { return input_ids.size(0); }
};

/// The sequence with its tensors on the device.
Sequence to_device(Sequence sequence, torch::Device device);

/// One packed row of all sequences, each with its own positions from 0: LanguageModelInputs with
/// `offsets`. Nothing is padded. Throws Error when there is no sequence.
LanguageModelInputs pack_sequences(const LanguageModel& model,
                                   const std::vector<Sequence>& sequences);

/// The sequences of a packed row, or the rows of a dense batch without their padding, each with its
/// own images and videos (positions and token types are derived again). Throws Error when grids and
/// tokens differ.
std::vector<Sequence> split_batch(const LanguageModel& model, const LanguageModelInputs& inputs);

}  // namespace cosmos::modules
