#include "modules/vlm/conversation.h"

#include <algorithm>
#include <map>

#include "modules/core/fields.h"

namespace cosmos::modules {
namespace {

using Kind = MessagePart::Kind;

std::string text_of(const Json& json, const std::string& where) {
  require(json.is_string(), where, ": expected text, got ", describe(json));
  return json.get<std::string>();
}

const Json& field(const Json& json, const char* key, const std::string& where) {
  require(json.is_object() && json.contains(key), where, ": expected an object with ", key,
          ", got ", describe(json));
  return json[key];
}

std::string media_path(const Json& json, const std::string& where) {
  const std::string path =
      json.is_object() ? text_of(field(json, "url", where), where + ".url") : text_of(json, where);
  const std::string scheme = "file://";
  require(!path.empty(), where, ": expected a path, got an empty text");
  return path.rfind(scheme, 0) == 0 ? path.substr(scheme.size()) : path;
}

MessagePart read_part(const Json& json, const std::string& where) {
  if (json.is_string()) return {.kind = Kind::kText, .value = json.get<std::string>()};
  const std::string type = text_of(field(json, "type", where), where + ".type");
  static const std::map<std::string, Kind> kinds = {{"text", Kind::kText},
                                                    {"image", Kind::kImage},
                                                    {"image_url", Kind::kImage},
                                                    {"video", Kind::kVideo},
                                                    {"video_url", Kind::kVideo}};
  const auto found = kinds.find(type);
  require(found != kinds.end(), where, ".type: expected text, image, image_url, video or ",
          "video_url, got ", describe(json["type"]));
  const Json& value = field(json, type.c_str(), where);
  const std::string at = where + "." + type;
  return {.kind = found->second,
          .value = found->second == Kind::kText ? text_of(value, at) : media_path(value, at)};
}

Message read_message(const Json& json, const std::string& where) {
  Message message{.role = text_of(field(json, "role", where), where + ".role"), .parts = {}};
  if (json.contains("tool_calls")) message.tool_calls = json["tool_calls"];
  const bool calls = message.tool_calls.is_array() && !message.tool_calls.empty();
  if (calls && (!json.contains("content") || json["content"].is_null())) return message;
  const Json& content = field(json, "content", where);
  if (!content.is_array()) {
    message.parts.push_back({.kind = Kind::kText, .value = text_of(content, where + ".content")});
    return message;
  }
  for (std::size_t i = 0; i < content.size(); ++i)
    message.parts.push_back(read_part(content[i], where + ".content[" + std::to_string(i) + "]"));
  return message;
}

// The paths of `image` or `video`, taken one at a time.
class MediaList {
 public:
  MediaList(const Json& line, const char* key, const std::string& where)
      : key_(key), where_(where) {
    if (!line.contains(key) || line[key].is_null()) return;
    const Json& value = line[key];
    if (!value.is_array()) {
      paths_.push_back(media_path(value, where + "." + key));
      return;
    }
    for (const auto& item : value) paths_.push_back(media_path(item, where + "." + key));
  }

  std::string take() {
    require(next_ < paths_.size(), where_, ": more <", key_, "> in the texts than the ",
            paths_.size(), " of \"", key_, "\"");
    return paths_[next_++];
  }
  void finish() const {
    require(next_ == paths_.size(), where_, ": \"", key_, "\" has ", paths_.size(),
            " entries, the texts have ", next_, " <", key_, ">");
  }

 private:
  std::string key_, where_;
  std::vector<std::string> paths_;
  std::size_t next_ = 0;
};

// Text cut at <image> and <video>; one newline behind a medium belongs to the mark.
std::vector<MessagePart> split_marks(const std::string& text, MediaList& images,
                                     MediaList& videos) {
  std::vector<MessagePart> parts;
  std::size_t begin = 0;
  for (;;) {
    const std::size_t image = text.find("<image>", begin), video = text.find("<video>", begin);
    const std::size_t mark = std::min(image, video);
    const std::string before = text.substr(begin, mark - begin);
    if (!before.empty()) parts.push_back({.kind = Kind::kText, .value = before});
    if (mark == std::string::npos) return parts;
    const bool is_image = mark == image;
    parts.push_back({.kind = is_image ? Kind::kImage : Kind::kVideo,
                     .value = is_image ? images.take() : videos.take()});
    begin = mark + 7;
    if (begin < text.size() && text[begin] == '\n') ++begin;
  }
}

std::string llava_role(const std::string& from, const std::string& where) {
  static const std::map<std::string, std::string> roles = {
      {"system", "system"},       {"human", "user"}, {"user", "user"},       {"gpt", "assistant"},
      {"assistant", "assistant"}, {"tool", "tool"},  {"observation", "tool"}};
  const auto found = roles.find(from);
  require(found != roles.end(), where, ".from: expected human, gpt, system or tool, got \"", from,
          "\"");
  return found->second;
}

Conversation read_llava(const Json& line, const std::string& where) {
  Conversation conversation;
  MediaList images(line, "image", where), videos(line, "video", where);
  const Json& turns = line["conversations"];
  require(turns.is_array(), where, ".conversations: expected a list, got ", describe(turns));
  if (line.contains("system"))
    conversation.messages.push_back(
        {.role = "system",
         .parts = {{.kind = Kind::kText, .value = text_of(line["system"], where + ".system")}}});
  for (std::size_t i = 0; i < turns.size(); ++i) {
    const std::string at = where + ".conversations[" + std::to_string(i) + "]";
    const std::string from = text_of(field(turns[i], "from", at), at + ".from");
    const std::string value = text_of(field(turns[i], "value", at), at + ".value");
    conversation.messages.push_back(
        {.role = llava_role(from, at), .parts = split_marks(value, images, videos)});
  }
  images.finish();
  videos.finish();
  return conversation;
}

bool is_blank(const std::string& text) {
  return text.find_first_not_of(" \t\r\n") == std::string::npos;
}

// Whether `role` may follow `before` ("" at the beginning).
bool may_follow(const std::string& role, const std::string& before) {
  if (role == "system") return before.empty();
  if (role == "user") return before.empty() || before == "system" || before == "assistant";
  if (role == "assistant") return before == "user" || before == "tool";
  return role == "tool" && (before == "assistant" || before == "tool");
}

}  // namespace

std::string Message::text() const {
  std::string all;
  for (const auto& part : parts)
    if (part.kind == Kind::kText) all += part.value;
  return all;
}

Conversation read_conversation(const Json& json, const std::string& where) {
  require(json.is_object(), where, ": expected an object, got ", describe(json));
  Conversation conversation;
  if (json.contains("messages")) {
    const Json& messages = json["messages"];
    require(messages.is_array(), where, ".messages: expected a list, got ", describe(messages));
    for (std::size_t i = 0; i < messages.size(); ++i)
      conversation.messages.push_back(
          read_message(messages[i], where + ".messages[" + std::to_string(i) + "]"));
  } else {
    require(json.contains("conversations"), where,
            ": expected an object with messages (OpenAI) or conversations (LLaVA)");
    conversation = read_llava(json, where);
  }
  if (json.contains("tools")) conversation.tools = json["tools"];
  require(!conversation.messages.empty(), where, ": the conversation is empty");
  return conversation;
}

void check_conversation(const Conversation& conversation, const std::string& where) {
  std::string before;
  for (std::size_t i = 0; i < conversation.messages.size(); ++i) {
    const Message& message = conversation.messages[i];
    const std::string at = where + ": message " + std::to_string(i + 1);
    require(may_follow(message.role, before), at, ": roles out of order: \"", message.role, "\" ",
            before.empty() ? "at the beginning" : "after \"" + before + "\"");
    const bool calls = message.tool_calls.is_array() && !message.tool_calls.empty();
    require(message.role != "assistant" || calls || !is_blank(message.text()), at,
            ": the assistant's answer is empty");
    before = message.role;
  }
  require(before == "assistant", where, ": expected an assistant's answer at the end, got \"",
          before, "\"");
}

}  // namespace cosmos::modules
