#include "modules/pipeline/prompt_encoder.h"

#include "modules/hub/atomic_file.h"
#include "modules/vlm/chat_template.h"
#include "modules/vlm/reason_embeddings.h"

namespace cosmos::modules {
namespace {

namespace fs = std::filesystem;

constexpr const char* kReasonSystem =
    "You are a helpful assistant who will provide prompts to an image generator.";

/// How many of the texts have more than `length` tokens.
int64_t count_cut(const TextTokenizer& tokenizer, const std::vector<std::string>& texts,
                  int64_t length) {
  int64_t count = 0;
  for (const auto& text : texts)
    count += static_cast<int64_t>(tokenizer.encode(text).size()) > length;
  return count;
}

}  // namespace

bool PromptEncoder::is_in(const fs::path& pipeline) {
  return is_file(pipeline / "text_encoder" / "config.json");
}

std::unique_ptr<PromptEncoder> PromptEncoder::load(const fs::path& pipeline,
                                                   const LoadOptions& options) {
  require(is_in(pipeline), pipeline.string(),
          ": has no text_encoder/ (copy it from the release, or hand over prompt_embeds)");
  return load(pipeline / "text_encoder", pipeline / "tokenizer", options);
}

std::unique_ptr<PromptEncoder> PromptEncoder::load(const fs::path& text_encoder,
                                                   const fs::path& tokenizer,
                                                   const LoadOptions& options) {
  auto words = TextTokenizer::load(tokenizer);
  auto model = load_model(text_encoder, options);
  if (auto t5 = std::dynamic_pointer_cast<T5EncoderModel>(model))
    return std::make_unique<T5PromptEncoder>(std::move(t5), std::move(words));
  auto reason = std::dynamic_pointer_cast<LanguageModel>(model);
  require(reason && reason->class_name() == "Qwen2_5_VLForConditionalGeneration",
          text_encoder.string(),
          ": expected T5EncoderModel or Qwen2_5_VLForConditionalGeneration, "
          "got ",
          model->class_name());
  return std::make_unique<ReasonPromptEncoder>(std::move(reason), std::move(words));
}

Tensor T5PromptEncoder::encode(const std::vector<std::string>& prompts, int64_t length,
                               int64_t* cut) {
  const torch::NoGradGuard no_grad;
  if (cut) *cut = count_cut(*tokenizer_, prompts, length);
  const TokenBatch batch = tokenizer_->encode_batch(prompts, {.length = length});
  const auto device = model_->parameters().front().device();
  const Tensor mask = batch.attention_mask.to(device);
  const Tensor hidden = model_->forward(batch.input_ids.to(device), mask);
  return hidden * mask.unsqueeze(-1).to(hidden.scalar_type());
}

Tensor ReasonPromptEncoder::encode(const std::vector<std::string>& prompts, int64_t length,
                                   int64_t* cut) {
  std::vector<std::string> chats;
  using Kind = MessagePart::Kind;
  for (const auto& prompt : prompts) {
    Conversation chat;
    chat.messages.push_back(
        {.role = "system", .parts = {{.kind = Kind::kText, .value = kReasonSystem}}});
    chat.messages.push_back({.role = "user", .parts = {{.kind = Kind::kText, .value = prompt}}});
    chats.push_back(render_chat(chat, ChatFormat::kQwen25VL));
  }
  if (cut) *cut = count_cut(*tokenizer_, chats, length);
  const TokenBatch batch = tokenizer_->encode_batch(chats, {.length = length, .pad_left = false});
  return reason_embeddings(*model_, batch.input_ids.to(model_->parameters().front().device()));
}

int64_t ReasonPromptEncoder::width() const {
  return model_->config().text.hidden_size * model_->config().text.num_hidden_layers;
}

}  // namespace cosmos::modules
