#pragma once

// Conversations as tokens, with the answers marked that a model learns.

#include "modules/vlm/conversation.h"
#include "modules/vlm/sequence.h"

namespace cosmos::modules {

inline constexpr int64_t kIgnoreToken = -100;  ///< label of a token that is not learned

struct EncodedConversation {
  Sequence sequence;
  Tensor labels;  ///< int64 [L]: the token itself where it is learned, kIgnoreToken elsewhere
};

class ConversationEncoder {
 public:
  virtual ~ConversationEncoder() = default;
  /// All turns; the assistant's are learned. Called from several threads at once. Throws Error when
  /// a medium cannot be read.
  virtual EncodedConversation encode(const Conversation& conversation) const = 0;
  /// Tokens that encode() would give; videos are opened, not decoded.
  virtual int64_t length(const Conversation& conversation) const = 0;
  /// The conversation so far, with the assistant's turn open.
  virtual Sequence prompt(const Conversation& conversation) const = 0;
  /// What follows an answer (its stop token) when tools answer its calls: their turn, one result a
  /// call, and the assistant's next turn open.
  virtual std::vector<int64_t> tool_turn(const std::vector<std::string>& results) const = 0;
  /// Text of an answer's tokens, without special ones.
  virtual std::string decode(const std::vector<int64_t>& tokens) const = 0;
  /// Tokens that end an answer.
  virtual std::vector<int64_t> stop_tokens() const = 0;
};

}  // namespace cosmos::modules
