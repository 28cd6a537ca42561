#pragma once

// What training would compute of every clip again: latents by the tokenizer, embeddings of captions
// by the text encoder. Files beside the clips, under the names that training's data set looks for
// (trainer/data/clip_list.h).

#include "modules/pipeline/prompt_encoder.h"
#include "modules/tokenizer/video_tokenizer.h"
#include "tools/curate/config.h"
#include "tools/curate/stages.h"

namespace cosmos::curate {

/// latents/{id}.safetensors of every kept clip: `latents` [C, t, h, w] float32, the mode of the
/// tokenizer's posterior, not normalised, of the clip's first latents.frames frames. Clips that do
/// not decode fail.
class Latents : public ClipStage {
 public:
  /// Reads the tokenizer. Throws Error where the folder holds none or it cannot take the size.
  Latents(Store& store, std::filesystem::path output, const LatentConfig& config);
  std::string name() const override { return "latents"; }
  int64_t most_threads() const override { return 1; }  // one model

 private:
  bool wanted(const Segment& clip) override { return !store_.is_made("latents", clip.id); }
  void process(Video& video, Segment& clip) override;

  std::filesystem::path output_;
  LatentConfig config_;
  std::shared_ptr<modules::VideoTokenizer> tokenizer_;
};

/// text_embeds/{id}.safetensors of every kept clip: `text_embeds` [text_embeds.length, width] of
/// its caption (of no text where it has none), as `cosmos-convert embed` writes them.
class TextEmbeds : public ClipStage {
 public:
  /// Reads the encoder. Throws Error where the folder holds none.
  TextEmbeds(Store& store, const Config& config);
  std::string name() const override { return "text embeddings"; }
  int64_t most_threads() const override { return 1; }  // one model

 private:
  bool wanted(const Segment& clip) override { return !store_.is_made("text_embeds", clip.id); }
  void process(Video& video, Segment& clip) override;

  const Config& config_;
  std::unique_ptr<modules::PromptEncoder> encoder_;
};

/// The kinds of such files that a run with these settings writes: folders below the output, each
/// with a file {id}.safetensors a kept clip.
std::vector<std::string> encoded_kinds(const Config& config);

}  // namespace cosmos::curate
