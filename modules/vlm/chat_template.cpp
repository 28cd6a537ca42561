#include "modules/vlm/chat_template.h"

#include <map>

namespace cosmos::modules {
namespace {

using Kind = MessagePart::Kind;

constexpr const char* kToolsHead =
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are "
    "provided "
    "with function signatures within <tools></tools> XML tags:\n<tools>";
constexpr const char* kToolsTail =
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, "
    "\"arguments\": "
    "<args-json-object>}\n</tool_call><|im_end|>\n";

/// As Python's json.dumps writes it: a space behind ":" and ",", characters as they are.
template <typename AnyJson>
std::string python_json(const AnyJson& json) {
  if (!json.is_structured()) return json.dump();
  std::string text(1, json.is_array() ? '[' : '{');
  for (auto item = json.begin(); item != json.end(); ++item) {
    if (item != json.begin()) text += ", ";
    if (json.is_object()) text += AnyJson(item.key()).dump() + ": ";
    text += python_json(*item);
  }
  return text + (json.is_array() ? ']' : '}');
}

std::string strip_newlines(const std::string& text, bool front, bool back) {
  const auto first = front ? text.find_first_not_of('\n') : 0;
  if (first == std::string::npos) return "";
  const auto last = back ? text.find_last_not_of('\n') : text.size() - 1;
  return last == std::string::npos ? "" : text.substr(first, last - first + 1);
}

/// Writes one conversation.
class Writer {
 public:
  Writer(const Conversation& conversation, ChatFormat format, const ChatOptions& options)
      : chat_(conversation), format_(format), options_(options) {
    bool calls = false;
    for (const Message& message : chat_.messages)
      calls = calls || message.role == "tool" || has_calls(message);
    tools_ = !chat_.tools.empty();
    // Qwen2.5-VL's own template, where no tools are involved.
    plain_ = format == ChatFormat::kQwen25VL && !tools_ && !calls;
  }

  std::string write() {
    system();
    last_question_ = find_last_question();
    for (std::size_t i = 0; i < chat_.messages.size(); ++i) message(i);
    if (options_.generation_prompt) {
      out_ += "<|im_start|>assistant\n";
      if (format_ == ChatFormat::kQwen3 && !options_.thinking) out_ += "<think>\n\n</think>\n\n";
    }
    return std::move(out_);
  }

 private:
  static bool has_calls(const Message& message) { return !message.tool_calls.empty(); }
  bool vision() const {
    return format_ == ChatFormat::kQwen25VL || format_ == ChatFormat::kQwen3VL;
  }
  bool first_is_system() const {
    return !chat_.messages.empty() && chat_.messages[0].role == "system";
  }

  void turn(const std::string& role, const std::string& text) {
    out_ += "<|im_start|>" + role + "\n" + text + "<|im_end|>\n";
  }

  /// The system message, the default one where the format has one, and the tools.
  void system() {
    if (plain_ && first_is_system()) return;  // written in its place, with media if it has any
    std::string text;
    if (first_is_system()) {
      text = chat_.messages[0].text();
    } else if (format_ == ChatFormat::kQwen2) {
      text = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";
    } else if (format_ == ChatFormat::kQwen25VL) {
      text = "You are a helpful assistant.";
    }
    const bool has_text = first_is_system() || !text.empty();
    if (!tools_) {
      if (has_text) turn("system", text);
      return;
    }
    out_ += "<|im_start|>system\n" + text + (has_text ? "\n\n" : "") + kToolsHead;
    for (const auto& tool : chat_.tools) out_ += "\n" + python_json(tool);
    out_ += kToolsTail;
  }

  std::string write_parts(const Message& message) {
    std::string text;
    for (const MessagePart& part : message.parts) {
      if (part.kind == Kind::kText) {
        text += part.value;
        continue;
      }
      require(vision(), "messages: ", part.value, ": this model reads text only");
      const bool image = part.kind == Kind::kImage;
      int64_t& count = image ? images_ : videos_;
      ++count;
      if (options_.vision_ids)
        text += (image ? "Picture " : "Video ") + std::to_string(count) + ": ";
      text += image ? "<|vision_start|><|image_pad|><|vision_end|>"
                    : "<|vision_start|><|video_pad|><|vision_end|>";
    }
    return text;
  }

  /// The last user message that is not a tool's answer: thoughts before it are forgotten.
  std::size_t find_last_question() const {
    for (std::size_t i = chat_.messages.size(); i-- > 0;) {
      const Message& message = chat_.messages[i];
      if (message.role != "user") continue;
      const std::string text = message.text();
      if (!text.starts_with("<tool_response>") || !text.ends_with("</tool_response>")) return i;
    }
    return chat_.messages.empty() ? 0 : chat_.messages.size() - 1;
  }

  /// Qwen3: the thought stays where it belongs to the last question's answer. `content`: whether
  /// there is anything but a thought.
  std::string answer(std::size_t index, bool& content) {
    const Message& message = chat_.messages[index];
    std::string text = format_ == ChatFormat::kQwen3VL || format_ == ChatFormat::kQwen3
                           ? message.text()
                           : write_parts(message);
    content = !text.empty();
    if (format_ != ChatFormat::kQwen3) return text;
    std::string thought;
    const std::string open = "<think>", close = "</think>";
    if (const auto end = text.find(close); end != std::string::npos) {
      thought = strip_newlines(text.substr(0, end), false, true);
      if (const auto begin = thought.rfind(open); begin != std::string::npos)
        thought = thought.substr(begin + open.size());
      text = strip_newlines(text.substr(text.rfind(close) + close.size()), true, false);
      content = !text.empty();
    }
    const bool last = index + 1 == chat_.messages.size();
    const std::string bare = strip_newlines(thought, true, false);
    if (index <= last_question_ || (!last && bare.empty())) return text;
    return "<think>\n" + strip_newlines(thought, true, true) + "\n</think>\n\n" +
           strip_newlines(text, true, false);
  }

  void assistant(std::size_t index) {
    const Message& message = chat_.messages[index];
    bool content = false;
    const std::string text = answer(index, content);
    const bool old = format_ == ChatFormat::kQwen2 || format_ == ChatFormat::kQwen25VL;
    out_ += "<|im_start|>assistant";
    if (!old || !has_calls(message) || !text.empty()) out_ += "\n" + text;
    bool first = true;
    for (const auto& call : message.tool_calls) {
      if (old || !first || content) out_ += "\n";
      first = false;
      const auto& function = call.contains("function") ? call["function"] : call;
      require(function.is_object() && function.contains("name") && function.contains("arguments") &&
                  function["name"].is_string(),
              "messages[", index, "].tool_calls: expected objects with name and arguments");
      const auto& arguments = function["arguments"];
      out_ += "<tool_call>\n{\"name\": \"" + function["name"].template get<std::string>() +
              "\", \"arguments\": ";
      out_ += arguments.is_string() && !old ? arguments.template get<std::string>()
                                            : python_json(arguments);
      out_ += "}\n</tool_call>";
    }
    out_ += "<|im_end|>\n";
  }

  void tool(std::size_t index) {
    const auto is_tool = [&](std::size_t i) {
      return i < chat_.messages.size() && chat_.messages[i].role == "tool";
    };
    if (index == 0 || !is_tool(index - 1)) out_ += "<|im_start|>user";
    out_ += "\n<tool_response>\n" + write_parts(chat_.messages[index]) + "\n</tool_response>";
    if (!is_tool(index + 1)) out_ += "<|im_end|>\n";
  }

  void message(std::size_t index) {
    const Message& message = chat_.messages[index];
    if (message.role == "system") {
      require(index == 0 || format_ != ChatFormat::kQwen3VL, "messages[", index,
              "]: a system message may only come first");
      if (index > 0 || plain_) turn("system", write_parts(message));
    } else if (message.role == "user") {
      turn("user", write_parts(message));
    } else if (message.role == "assistant") {
      assistant(index);
    } else if (message.role == "tool") {
      tool(index);
    } else {
      fail("messages[", index, "].role: expected system, user, assistant or tool, got ",
           message.role);
    }
  }

  const Conversation& chat_;
  ChatFormat format_;
  ChatOptions options_;
  bool tools_ = false, plain_ = false;
  std::size_t last_question_ = 0;
  int64_t images_ = 0, videos_ = 0;
  std::string out_;
};

}  // namespace

ChatFormat chat_format(const std::string& model_type) {
  static const std::map<std::string, ChatFormat> kFormats = {
      {"qwen2", ChatFormat::kQwen2},          {"qwen2_5_vl", ChatFormat::kQwen25VL},
      {"qwen2_vl", ChatFormat::kQwen25VL},    {"qwen3", ChatFormat::kQwen3},
      {"qwen3_moe", ChatFormat::kQwen3},      {"qwen3_vl", ChatFormat::kQwen3VL},
      {"qwen3_vl_moe", ChatFormat::kQwen3VL},
  };
  const auto found = kFormats.find(model_type);
  require(found != kFormats.end(), "model_type: no chat template is built in for ", model_type,
          " (qwen2, qwen2_5_vl, qwen3, qwen3_moe, qwen3_vl, qwen3_vl_moe)");
  return found->second;
}

std::string render_chat(const Conversation& conversation, ChatFormat format,
                        const ChatOptions& options) {
  return Writer(conversation, format, options).write();
}

std::vector<bool> answer_mask(const std::vector<int64_t>& ids, const TextTokenizer& tokenizer) {
  const int64_t start = tokenizer.id("<|im_start|>"), end = tokenizer.id("<|im_end|>");
  const std::vector<int64_t> assistant = tokenizer.encode("assistant", /*special_tokens=*/false);
  std::vector<bool> mask(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] != start || i + 1 + assistant.size() >= ids.size() ||
        !std::equal(assistant.begin(), assistant.end(), ids.begin() + static_cast<int64_t>(i) + 1))
      continue;
    i += assistant.size() + 2;  // over the role and the end of its line
    while (i < ids.size() && ids[i] != end) mask[i++] = true;
    if (i < ids.size()) mask[i] = true;
  }
  return mask;
}

}  // namespace cosmos::modules
