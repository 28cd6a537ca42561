#include "tools/curate/semantic.h"

#include "modules/hub/atomic_file.h"
#include "modules/hub/safetensors.h"
#include "modules/vlm/processor.h"
#include "tools/curate/clip_frames.h"
#include "tools/curate/kmeans.h"
#include "tools/curate/vision_model.h"

namespace cosmos::curate {
namespace {

namespace fs = std::filesystem;

constexpr const char* kReason = "semantic duplicate";

}  // namespace

Embed::Embed(Store& store, const DedupConfig& config)
    : ClipStage(store, "cannot be embedded"),
      config_(config),
      processor_(modules::ProcessorConfig::load(config.model)) {
  model_ = load_vision_model(config.model);
}

void Embed::process(Video& video, Segment& clip) {
  const torch::NoGradGuard no_graph;
  if (video.info.times.empty()) video.info = trainer::probe_video(video.path);
  store_.save_embedding(clip.id, embed(video, clip));
}

std::vector<float> Embed::embed(const Video& video, const Segment& clip) const {
  const Tensor frames = trainer::read_frames_at(
      video.path, video.info, frame_times(clip, config_.fps, config_.frames),
      {.height = config_.side, .width = config_.side, .fit = trainer::Fit::kStretch});
  const modules::Patches patches = modules::video_patches(frames, processor_);
  const Tensor tokens = model_->vision_tokens(patches.pixels, {patches.grid});
  Tensor mean = tokens.to(torch::kFloat32).mean(0);
  mean = (mean / mean.norm().clamp_min(1e-12)).contiguous();
  return {mean.data_ptr<float>(), mean.data_ptr<float>() + mean.numel()};
}

void drop_semantic_duplicates(Store& store, const Config& config) {
  std::vector<Segment> clips;
  Tensors rows;
  for (const Source& source : store.sources("analysed"))
    for (Segment& clip : store.segments(source.id)) {
      if (!store.has_embedding(clip.id)) continue;
      rows.push_back(torch::tensor(store.embedding(clip.id)));
      clips.push_back(std::move(clip));
    }
  if (clips.empty()) return;
  const Tensor embeddings = torch::stack(rows);
  // Of vectors of length 1 the squared distance is 2 - 2 cos.
  const Clusters clusters =
      kmeans(embeddings, config.dedup.clusters, config.dedup.max_iterations, 2 * config.dedup.eps);
  const std::vector<Neighbour> neighbours = earlier_neighbours(embeddings, clusters);
  std::string table = "id,cluster,max_id,cosine_sim_score,kept\n";
  std::vector<Segment> changed;
  for (std::size_t i = 0; i < clips.size(); ++i) {
    const Neighbour& n = neighbours[i];
    const bool repeats = n.nearest >= 0 && n.cosine > 1 - config.dedup.eps;
    char cosine[32];
    std::snprintf(cosine, sizeof(cosine), "%.7f", n.cosine);
    table += clips[i].id + "," + std::to_string(n.cluster) + "," +
             (n.nearest < 0 ? "" : clips[static_cast<std::size_t>(n.nearest)].id) + "," + cosine +
             "," + (repeats ? "0" : "1") + "\n";
    // More input may change the clusters, and with them what was decided before.
    Segment& clip = clips[i];
    if (repeats && clip.state == State::kKept) {
      clip.state = State::kDropped;
      clip.reason = kReason;
      clip.file.clear();
      changed.push_back(clip);
    } else if (!repeats && clip.reason == kReason) {
      clip.state = State::kKept;
      clip.reason.clear();
      changed.push_back(clip);
    }
  }
  store.decide_segments(changed);
  const fs::path folder = fs::path(config.output) / "semantic";
  modules::write_file(folder / "pruning.csv", table);
  modules::save_safetensors(folder / "embeddings.safetensors",
                            {{"embeddings", embeddings},
                             {"centroids", clusters.centroids},
                             {"assignment", clusters.assignment}});
}

}  // namespace cosmos::curate
