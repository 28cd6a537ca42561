#pragma once

// Captions by a vision-language model of this suite (Cosmos Reason).

#include "modules/vlm/generate.h"
#include "tools/curate/config.h"
#include "tools/curate/stages.h"
#include "trainer/data/chat_encoder.h"

namespace cosmos::curate {

/// The caption of every kept clip that has none yet, into the store: what the model answers to
/// captions.prompt about the clip's file. Clips that it cannot be asked about fail ("cannot be
/// captioned").
class Caption : public ClipStage {
 public:
  /// Reads the model. Throws Error where the folder holds none.
  Caption(Store& store, std::filesystem::path output, const CaptionConfig& config);
  std::string name() const override { return "caption"; }
  int64_t most_threads() const override { return 1; }  // one model

 private:
  bool wanted(const Segment& clip) override { return !store_.caption(clip.id); }
  void process(Video& video, Segment& clip) override;
  std::string describe(const std::filesystem::path& clip) const;

  std::filesystem::path output_;
  CaptionConfig config_;
  std::shared_ptr<modules::LanguageModel> model_;
  std::shared_ptr<const trainer::ChatEncoder> encoder_;
};

/// The clip's own caption, else the one that the config gives all.
std::string caption_of(Store& store, const Config& config, const Segment& clip);

}  // namespace cosmos::curate
