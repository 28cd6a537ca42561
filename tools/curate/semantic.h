#pragma once

// What clips show, as vectors, and clips that show the same.

#include "modules/vlm/language_model.h"
#include "modules/vlm/processor_config.h"
#include "tools/curate/config.h"
#include "tools/curate/stages.h"

namespace cosmos::curate {

/// The embedding of every kept clip that has none yet, into the store: frames at dedup.fps through
/// the vision tower of a Qwen2.5-VL or Qwen3-VL folder (Cosmos Reason), the mean over its tokens,
/// length 1. Clips that do not decode fail.
class Embed : public ClipStage {
 public:
  /// Reads the model. Throws Error where the folder holds none with a vision tower.
  Embed(Store& store, const DedupConfig& config);
  std::string name() const override { return "embed"; }
  int64_t most_threads() const override { return 1; }  // one model

 private:
  bool wanted(const Segment& clip) override { return !store_.has_embedding(clip.id); }
  void process(Video& video, Segment& clip) override;
  std::vector<float> embed(const Video& video, const Segment& clip) const;

  DedupConfig config_;
  std::shared_ptr<modules::LanguageModel> model_;
  modules::ProcessorConfig processor_;
};

/// Drops ("semantic duplicate") every clip with an embedding whose cosine to an earlier one of its
/// cluster (kmeans.h) is above 1 - dedup.eps. Decided anew from the stored embeddings each time, as
/// near_duplicates.h. Writes semantic/embeddings.safetensors (embeddings, centroids, assignment; a
/// row a clip) and semantic/pruning.csv (id, cluster, max_id, cosine_sim_score, kept).
void drop_semantic_duplicates(Store& store, const Config& config);

}  // namespace cosmos::curate
