#pragma once

// What cosmos-eval says of a set of clips as a whole: FID over all frames, FVD over windows, by
// feature networks that the user names.

#include <filesystem>
#include <string>
#include <vector>

#include "modules/core/model.h"
#include "modules/metrics/feature_network.h"
#include "modules/metrics/frechet.h"
#include "trainer/data/video_reader.h"

namespace cosmos::tools {

namespace fs = std::filesystem;

/// The clip itself, or the clips of a folder, by name.
inline std::vector<fs::path> clips_of(const fs::path& path) {
  if (!fs::is_directory(path)) return {path};
  std::vector<fs::path> clips;
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.is_regular_file()) clips.push_back(entry.path());
  std::sort(clips.begin(), clips.end());
  require(!clips.empty(), path.string(), ": holds no clips");
  return clips;
}

/// Frames of all clips one by one (window 1: pictures [n, 3, H, W]), or their windows end to end
/// ([1, 3, window, H, W]; frames that fill none are left), as rows of features.
inline Tensor features_of(modules::FeatureNetwork& network, const fs::path& path, int64_t window) {
  constexpr int64_t kPicturesAtOnce = 16;
  Tensors rows;
  for (const fs::path& clip : clips_of(path)) {
    const auto info = trainer::probe_video(clip);
    require(info.frames() >= window, clip.string(), ": FVD looks at ", window,
            " frames at a time, it has ", info.frames());
    const int64_t step = window > 1 ? window : kPicturesAtOnce;
    for (int64_t first = 0; first + window <= info.frames(); first += step) {
      const int64_t count = std::min(step, info.frames() - first);
      const Tensor frames =
          trainer::read_video(clip, info, {.first = first, .frames = count}).to(torch::kFloat32);
      rows.push_back(network.features(window > 1 ? frames.permute({3, 0, 1, 2}).unsqueeze(0)
                                                 : frames.permute({0, 3, 1, 2}).contiguous()));
    }
  }
  return torch::cat(rows);
}

/// {"value": distance, "clip_samples": n, "reference_samples": m}
inline Json set_distance(const fs::path& network, const fs::path& clip, const fs::path& reference,
                         int64_t window) {
  modules::FeatureNetwork features(network);
  const Tensor a = features_of(features, clip, window);
  const Tensor b = features_of(features, reference, window);
  return {{"value", modules::frechet_distance(a, b)},
          {"clip_samples", a.size(0)},
          {"reference_samples", b.size(0)}};
}

}  // namespace cosmos::tools
