#include "tools/curate/caption.h"

#include "tools/curate/vision_model.h"

namespace cosmos::curate {

using modules::MessagePart;

Caption::Caption(Store& store, std::filesystem::path output, const CaptionConfig& config)
    : ClipStage(store, "cannot be captioned"),
      output_(std::move(output)),
      config_(config),
      encoder_(trainer::ChatEncoder::load(config.model)) {
  model_ = load_vision_model(config.model);
}

void Caption::process(Video&, Segment& clip) {
  store_.save_caption(clip.id, describe(output_ / clip.file));
}

std::string Caption::describe(const std::filesystem::path& clip) const {
  const modules::Conversation question{
      .messages = {{.role = "user",
                    .parts = {{.kind = MessagePart::Kind::kVideo, .value = clip.string()},
                              {.kind = MessagePart::Kind::kText, .value = config_.prompt}}}}};
  const auto answers =
      modules::generate(*model_, {encoder_->prompt(question)},
                        {.sampling = {.repetition_penalty = config_.repetition_penalty},
                         .max_new_tokens = config_.max_new_tokens,
                         .stop_tokens = encoder_->stop_tokens()});
  const std::string text = encoder_->decode(answers[0].tokens);
  const auto first = text.find_first_not_of(" \t\r\n"), last = text.find_last_not_of(" \t\r\n");
  return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

std::string caption_of(Store& store, const Config& config, const Segment& clip) {
  const std::string own = store.caption(clip.id).value_or("");
  return own.empty() ? config.caption : own;
}

}  // namespace cosmos::curate
