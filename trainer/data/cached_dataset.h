#pragma once

// A dataset whose samples go once through a function that is expensive and always gives the same: a
// frozen tokenizer's encoder, a text encoder. Results are kept in memory, or in a folder as
// safetensors, where the next run finds them.

#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "trainer/core/dataset.h"

namespace cosmos::trainer {

/// Maps a sample to what is kept of it, e.g. {video} to {latents}. Called from one thread at a
/// time.
using SampleMap = std::function<Sample(Sample)>;

struct CacheOptions {
  /// Empty: memory.
  std::filesystem::path folder;
  /// Says what the results depend on besides the item: the tokenizer's identity, the window's
  /// settings. A file written under another fingerprint is made again.
  std::string fingerprint;
};

class CachedDataset : public Dataset {
 public:
  /// `inner` must give the same sample for an item whatever the sample index: windows "all", no
  /// flip. Its samples are asked for with seed 0 and the item's number as sample index.
  CachedDataset(std::shared_ptr<Dataset> inner, SampleMap map, CacheOptions options = {});

  int64_t size() const override { return inner_->size(); }
  int64_t bucket(int64_t item) const override { return inner_->bucket(item); }
  Sample get(int64_t item, uint64_t seed, int64_t sample_index) override;
  std::string item_name(int64_t item) const override { return inner_->item_name(item); }
  std::vector<std::pair<std::string, std::string>> left_out() const override {
    return inner_->left_out();
  }

  /// Fills the cache item by item; `progress(done, size)` after each. Unreadable items are passed
  /// over here: the loader meets and counts them.
  void precompute(const std::function<void(int64_t, int64_t)>& progress = {});

 private:
  std::filesystem::path file(int64_t item) const;
  bool load(int64_t item, Sample& sample) const;
  void store(int64_t item, const Sample& sample) const;

  std::shared_ptr<Dataset> inner_;
  SampleMap map_;
  CacheOptions options_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Sample>> kept_;  ///< in memory
};

}  // namespace cosmos::trainer
