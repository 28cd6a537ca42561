#pragma once

// Conversations as the text that the Qwen families were trained on: what transformers'
// apply_chat_template makes of their published templates, without a template engine.
//
//   <|im_start|>system\nYou are a helpful assistant.<|im_end|>\n
//   <|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What is this?<|im_end|>\n
//   <|im_start|>assistant\n
//
// An image or a video is one placeholder here; the processor expands it (processor.h).

#include <optional>
#include <string>
#include <vector>

#include "modules/text/tokenizer.h"
#include "modules/vlm/conversation.h"

namespace cosmos::modules {

enum class ChatFormat {
  kQwen2,     ///< Qwen2 and Qwen2.5: a default system message, tools
  kQwen25VL,  ///< Qwen2.5-VL, Reason1: another default system message. Its published template knows
              ///< no tools; a conversation that has some is written as Qwen2.5 would
  kQwen3,     ///< Qwen3: tools, <think> kept in the turns that follow the last question only
  kQwen3VL,   ///< Qwen3-VL Instruct, Reason2: tools, no default system message, <think> as it is
};

/// By `model_type` of a config.json (qwen2, qwen2_5_vl, qwen3, qwen3_moe, qwen3_vl, qwen3_vl_moe,
/// ...). Throws Error on another one.
ChatFormat chat_format(const std::string& model_type);

struct ChatOptions {
  bool generation_prompt = false;  ///< end with an open assistant turn
  bool vision_ids = false;         ///< "Picture 1: ", "Video 1: " before each medium (VL formats)
  bool thinking = true;            ///< Qwen3: false writes an empty thought into the open turn
};

/// Throws Error on a role that the format does not have, or a medium where it takes text only.
std::string render_chat(const Conversation& conversation, ChatFormat format,
                        const ChatOptions& options = {});

/// Which tokens of a rendered conversation the assistant writes: those behind "<|im_start|>
/// assistant\n" up to its <|im_end|>, which is one of them.
std::vector<bool> answer_mask(const std::vector<int64_t>& ids, const TextTokenizer& tokenizer);

}  // namespace cosmos::modules
