#include "tools/curate/encode.h"

#include <algorithm>

#include "modules/hub/model_weights.h"
#include "modules/hub/registry.h"
#include "modules/hub/safetensors.h"
#include "modules/registry.h"
#include "tools/curate/caption.h"

namespace cosmos::curate {

Latents::Latents(Store& store, std::filesystem::path output, const LatentConfig& config)
    : ClipStage(store, "cannot be encoded"), output_(std::move(output)), config_(config) {
  modules::register_builtin_models();
  tokenizer_ =
      std::dynamic_pointer_cast<modules::VideoTokenizer>(modules::load_model(config.tokenizer));
  require(tokenizer_ && !tokenizer_->is_image_tokenizer(), config.tokenizer,
          ": latents.tokenizer: expected the folder of a video tokenizer (AutoencoderKLWan or "
          "AutoencoderKLCosmos)");
  tokenizer_->require_size(config.height, config.width, "latents");
}

void Latents::process(Video& video, Segment& clip) {
  const torch::NoGradGuard no_graph;
  const std::filesystem::path file = output_ / clip.file;
  const trainer::VideoInfo info = trainer::probe_video(file);
  const int64_t wanted =
      config_.frames > 0 ? std::min(config_.frames, info.frames()) : info.frames();
  const Tensor frames =
      trainer::read_video(file, info,
                          {.frames = tokenizer_->video_frames(tokenizer_->latent_frames(wanted)),
                           .size = {.height = config_.height, .width = config_.width}});
  const Tensor pixels =
      trainer::channels_first(frames).to(torch::kFloat32).div(127.5).sub(1).unsqueeze(0);
  const Tensor latents = tokenizer_->encode(pixels).mode().squeeze(0).contiguous();
  modules::save_safetensors(output_ / "latents" / (clip.id + ".safetensors"),
                            {{"latents", latents}});
  store_.save_made("latents", video.id, clip.id);
}

TextEmbeds::TextEmbeds(Store& store, const Config& config)
    : ClipStage(store, "its caption cannot be embedded"), config_(config) {
  modules::register_builtin_models();
  const TextEmbedConfig& text = config.text_embeds;
  encoder_ = text.tokenizer.empty()
                 ? modules::PromptEncoder::load(std::filesystem::path(text.model))
                 : modules::PromptEncoder::load(text.model, text.tokenizer, {});
}

void TextEmbeds::process(Video& video, Segment& clip) {
  const Tensor embeds =
      encoder_->encode({caption_of(store_, config_, clip)}, config_.text_embeds.length)[0]
          .to(modules::parse_dtype(config_.text_embeds.dtype))
          .contiguous();
  modules::save_safetensors(
      std::filesystem::path(config_.output) / "text_embeds" / (clip.id + ".safetensors"),
      {{"text_embeds", embeds}});
  store_.save_made("text_embeds", video.id, clip.id);
}

std::vector<std::string> encoded_kinds(const Config& config) {
  std::vector<std::string> kinds;
  if (!config.latents.tokenizer.empty()) kinds.push_back("latents");
  if (!config.text_embeds.model.empty()) kinds.push_back("text_embeds");
  return kinds;
}

}  // namespace cosmos::curate
