#pragma once

// What the trainer reads: samples by index. Everything about a sample follows from
// (seed, global sample index), so that neither workers nor ranks nor a restart change it.

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "modules/core/tensor.h"

namespace cosmos::trainer {

/// One training example.
struct Sample {
  int64_t index = 0;  ///< global sample index: position in the whole run
  TensorMap tensors;  ///< e.g. video: uint8 [C, T, H, W]; latents; text_embeds
  TensorMap ragged;   ///< of lengths that differ from sample to sample: tokens; may be absent
  std::map<std::string, std::string> text;  ///< e.g. caption, path
};

/// Samples that go through the model together. Tensors are stacked on a new first dimension, ragged
/// ones stand side by side: one a sample, undefined where it has none.
struct Batch {
  std::vector<int64_t> indices;  ///< global sample indices, one a sample
  TensorMap tensors;
  std::map<std::string, Tensors> ragged;
  std::map<std::string, std::vector<std::string>> text;
};

class Dataset {
 public:
  virtual ~Dataset() = default;

  /// Number of items in an epoch; at least 1.
  virtual int64_t size() const = 0;

  /// Items of one bucket have the same shapes and may share a batch.
  virtual int64_t bucket(int64_t item) const { return 0; }

  /// Loads `item`. Random choices (window, crop, flip) are drawn from
  /// Philox(seed, Purpose::kWindow, sample_index). Called from several threads at once. Throws
  /// Error when the item cannot be read; the loader then counts it and takes another.
  virtual Sample get(int64_t item, uint64_t seed, int64_t sample_index) = 0;

  /// What was left out when the dataset was opened (corrupt or too short), as (name, reason).
  virtual std::vector<std::pair<std::string, std::string>> left_out() const { return {}; }

  /// Name of an item for messages ("videos/a.mp4").
  virtual std::string item_name(int64_t item) const { return std::to_string(item); }
};

/// Stacks samples of one bucket.
Batch collate(const std::vector<Sample>& samples);
/// The batch with its tensors on `device`.
Batch to_device(Batch batch, torch::Device device);

}  // namespace cosmos::trainer
