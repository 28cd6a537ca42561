#pragma once

// Conversations of files as the tensors of a model: media decoded, placeholders expanded, the
// assistant's tokens marked.

#include <filesystem>

#include "modules/vlm/conversation_encoder.h"
#include "modules/vlm/processor.h"

namespace cosmos::trainer {

class ChatEncoder : public modules::ConversationEncoder {
 public:
  /// Tokenizer, chat format and, of a vision-language model, processor of a folder. `changes` to
  /// the processor: {"image": {"max_pixels": ...}, "video": {"fps": 4, ...}}. Throws Error when
  /// files are missing or a setting is unknown; `where` names the changes.
  static std::shared_ptr<const ChatEncoder> load(const std::filesystem::path& dir,
                                                 const Json& changes = Json::object(),
                                                 const std::string& where = "processor");

  modules::EncodedConversation encode(const modules::Conversation& conversation) const override;
  int64_t length(const modules::Conversation& conversation) const override;

  modules::Sequence prompt(const modules::Conversation& conversation) const override;
  std::vector<int64_t> tool_turn(const std::vector<std::string>& results) const override;
  std::string decode(const std::vector<int64_t>& tokens) const override;
  /// eos_token_id of the folder's generation_config.json, else the tokenizer's eos_token.
  std::vector<int64_t> stop_tokens() const override { return stop_tokens_; }

  std::shared_ptr<const modules::TextTokenizer> tokenizer() const { return processor_.tokenizer; }

 private:
  modules::Sequence sequence(const modules::Conversation& conversation,
                             const modules::ChatOptions& options) const;

  modules::VlmProcessor processor_;
  std::vector<int64_t> stop_tokens_;
  bool vision_ = false;
};

}  // namespace cosmos::trainer
