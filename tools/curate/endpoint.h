#pragma once

// Captions by a server that speaks OpenAI's chat API: vLLM, NIM, SGLang, or a service.

#include "tools/curate/config.h"
#include "tools/curate/stages.h"

namespace cosmos::curate {

/// The caption of every kept clip that has none yet, into the store: what the server at
/// captions.endpoint answers to captions.prompt and frames of the clip's file, each a PNG in a data
/// URL. A key is taken from the environment's COSMOS_CAPTION_KEY and stands in no file.
///
/// Answers 429 and 5xx, and a connection that fails, are asked again twice, a second and four
/// later; then the run stops with an Error and goes on when it is started again. Any other refusal
/// (400: a clip that the model cannot take) fails the clip, "cannot be captioned", with the
/// server's words.
class EndpointCaption : public ClipStage {
 public:
  EndpointCaption(Store& store, std::filesystem::path output, const CaptionConfig& config);
  std::string name() const override { return "caption"; }

 private:
  bool wanted(const Segment& clip) override { return !store_.caption(clip.id); }
  void process(Video& video, Segment& clip) override;
  std::string question(const std::filesystem::path& clip) const;

  std::filesystem::path output_;
  CaptionConfig config_;
};

}  // namespace cosmos::curate
