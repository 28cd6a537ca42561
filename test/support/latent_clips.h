#pragma once

// The data set "latent-clips" of the trainer's tests: made-up latents, the same in every process.

#include <memory>
#include <string>

#include "modules/core/random.h"
#include "trainer/data/registry.h"

namespace cosmos::test {

/// Six clips of latents [4, 3, 4, 4], or of the clips that the config describes, with more spread
/// in the first frame than in the others.
class LatentClips : public trainer::Dataset {
 public:
  explicit LatentClips(const Json& config)
      : sizes_{4, 1 + (config.value("num_frames", int64_t{9}) - 1) / 4,
               config.value("height", int64_t{32}) / 8, config.value("width", int64_t{32}) / 8} {}
  int64_t size() const override { return 6; }
  trainer::Sample get(int64_t item, uint64_t, int64_t sample_index) override {
    modules::Philox random(9, modules::Purpose::kNoise, static_cast<uint64_t>(item));
    Tensor latents = random.normal(sizes_) * 0.5;
    latents.select(1, 0).mul_(3);
    return {.index = sample_index, .tensors = {{"latents", latents}}, .text = {}};
  }

 private:
  std::vector<int64_t> sizes_;
};

/// Four clips of two views of latents [4, 3, 4, 4] each, one after another, with texts.
class LatentViews : public trainer::Dataset {
 public:
  int64_t size() const override { return 4; }
  trainer::Sample get(int64_t item, uint64_t, int64_t sample_index) override {
    modules::Philox random(8, modules::Purpose::kNoise, static_cast<uint64_t>(item));
    return {.index = sample_index,
            .tensors = {{"latents", random.normal({4, 6, 4, 4}) * 0.5},
                        {"text_embeds", random.normal({6, 8})},
                        {"view_indices", torch::tensor({item % 3, int64_t{4}})}},
            .text = {}};
  }
};

inline void register_latent_clips() {
  trainer::register_dataset("latent-views", [](const Json&, const std::string&) {
    return std::make_shared<LatentViews>();
  });
  trainer::register_dataset("latent-clips", [](const Json& config, const std::string&) {
    return std::make_shared<LatentClips>(config);
  });
}

}  // namespace cosmos::test
