#pragma once

// A conversation with images and videos, in the two forms that data comes in:
//
//   OpenAI      {"messages": [{"role": "user", "content": [{"type": "image", "image": "a.jpg"},
//               {"type": "text", "text": "What is this?"}]}, {"role": "assistant", "content":
//               "A."}]}
//   LLaVA       {"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat is
//               this?"}, {"from": "gpt", "value": "A."}]}

#include <string>
#include <vector>

#include "modules/core/model.h"

namespace cosmos::modules {

struct MessagePart {
  enum class Kind { kText, kImage, kVideo };
  Kind kind = Kind::kText;
  std::string value;  ///< the text, or the medium's path
};

struct Message {
  std::string role;  ///< system, user, assistant or tool
  std::vector<MessagePart> parts;
  Json tool_calls = nullptr;  ///< of an assistant, as OpenAI writes them

  /// The text of all parts.
  std::string text() const;
};

struct Conversation {
  std::vector<Message> messages;
  Json tools = nullptr;  ///< declarations of tools, as OpenAI writes them
};

/// Reads either form; a line with `messages` is the first. Content parts: text; image, image_url,
/// video, video_url (a path, or {"url": path}; "file://" is dropped). `<image>` and `<video>` in
/// LLaVA's texts take the next path of `image` and `video` (a string or a list). Throws Error with
/// `where` in front on anything else.
Conversation read_conversation(const Json& json, const std::string& where);

/// Throws Error unless it can be learned from: a system message first if any, then user and
/// assistant in turn (tool messages between an assistant's calls and its next turn), an assistant
/// last, no empty answer.
void check_conversation(const Conversation& conversation, const std::string& where);

}  // namespace cosmos::modules
