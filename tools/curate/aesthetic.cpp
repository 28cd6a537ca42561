#include "tools/curate/aesthetic.h"

#include <algorithm>
#include <limits>

#include "modules/hub/registry.h"
#include "modules/registry.h"
#include "tools/curate/clip_frames.h"

namespace cosmos::curate {
namespace {

constexpr std::size_t kFramesAtOnce = 8;

}  // namespace

Aesthetic::Aesthetic(Store& store, const AestheticConfig& config)
    : ClipStage(store, "cannot be scored"),
      config_(config),
      pixels_(modules::ClipPixels::load(config.model)),
      head_(modules::load_aesthetic(config.head)) {
  modules::register_builtin_models();
  tower_ = std::dynamic_pointer_cast<modules::ClipVisionModel>(modules::load_model(config.model));
  require(tower_ != nullptr, config.model,
          ": aesthetic.model: expected a CLIP folder (CLIPModel or CLIPVisionModelWithProjection)");
  require(tower_->config().projection_dim == head_->width(), config.head,
          ": expects embeddings of ", head_->width(), ", ", config.model, " gives ",
          tower_->config().projection_dim, " (the published head is for ViT-L/14)");
}

void Aesthetic::process(Video& video, Segment& clip) {
  const torch::NoGradGuard no_graph;
  if (video.info.times.empty()) video.info = trainer::probe_video(video.path);
  const Tensor scores = frame_scores(video, clip);
  const double score = (config_.statistic == "min" ? scores.min() : scores.mean()).item<double>();
  clip.scores["aesthetic"] = score;
  if (config_.min_score && score < *config_.min_score) {
    clip.state = State::kDropped;
    clip.reason = "low aesthetic score";
  }
  store_.update_segments(video.id, {clip});
}

Tensor Aesthetic::frame_scores(const Video& video, const Segment& clip) const {
  const std::vector<double> times =
      frame_times(clip, config_.fps, std::numeric_limits<int64_t>::max());
  Tensors scores;
  for (std::size_t first = 0; first < times.size(); first += kFramesAtOnce) {
    const std::vector<double> some(
        times.begin() + static_cast<std::ptrdiff_t>(first),
        times.begin() + static_cast<std::ptrdiff_t>(std::min(first + kFramesAtOnce, times.size())));
    const Tensor frames = trainer::read_frames_at(video.path, video.info, some, {});
    scores.push_back(head_->forward(
        tower_->forward(modules::clip_pixels(frames, tower_->config().image_size, pixels_))));
  }
  return torch::cat(scores);
}

}  // namespace cosmos::curate
