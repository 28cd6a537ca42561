#pragma once

// Prompts of a dataset or of a JSONL list.

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "ops/core/error.h"

namespace cosmos::tools {

inline constexpr uint64_t kMaxCaptionBytes = 16 << 20;

struct Prompt {
  /// Of what is made from it: a file name without ending; of a caption in a folder of its own
  /// (metas/CAMERA/NAME.txt) with that folder.
  std::string name;
  std::string text;
  Json line = Json::object();  ///< the whole object of a JSONL list
  std::string where{};         ///< FILE:LINE
};

/// Whether `name` is a file name and nothing more: no folder, no "..", not hidden.
inline bool is_plain_name(const std::string& name) {
  return !name.empty() && name[0] != '.' && name.size() < 200 &&
         name.find_first_of(std::string("/\\\0", 3)) == std::string::npos;
}

inline Prompt parse_prompt(const std::string& line, int64_t number, const std::string& where,
                           bool needs_text) {
  Prompt prompt{.line = modules::parse_json(line, where), .where = where};
  require(prompt.line.is_object(), where, ": expected an object");
  const auto text = [&](const char* key) {
    const auto found = prompt.line.find(key);
    if (found == prompt.line.end()) return std::string();
    require(found->is_string(), where, ": ", key, ": expected a text");
    return found->get<std::string>();
  };
  require(!needs_text || prompt.line.contains("prompt") || prompt.line.contains("caption"), where,
          ": expected `prompt` or `caption`");
  prompt.text = prompt.line.contains("prompt") ? text("prompt") : text("caption");
  prompt.name = text("name");
  if (prompt.name.empty()) prompt.name = std::filesystem::path(text("video")).stem().string();
  if (prompt.name.empty()) {
    char digits[24];
    std::snprintf(digits, sizeof digits, "%06lld", static_cast<long long>(number));
    prompt.name = digits;
  }
  require(is_plain_name(prompt.name), where, ": name: expected a file name, got ", prompt.name);
  return prompt;
}

inline std::vector<Prompt> read_prompt_lines(const std::filesystem::path& path, bool needs_text) {
  std::ifstream file(path);
  require(file.good(), path.string(), ": cannot be read");
  std::vector<Prompt> prompts;
  int64_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    prompts.push_back(
        parse_prompt(line, number, path.string() + ":" + std::to_string(number), needs_text));
  }
  return prompts;
}

inline std::vector<Prompt> read_captions(const std::filesystem::path& folder) {
  require(std::filesystem::is_directory(folder), folder.string(),
          ": no such folder; captions are read from metas/NAME.txt");
  std::vector<Prompt> prompts;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().extension() != ".txt") continue;
    std::string caption = modules::read_file(entry.path(), kMaxCaptionBytes);
    caption.erase(caption.find_last_not_of(" \t\r\n") + 1);
    const auto name = std::filesystem::relative(entry.path(), folder).replace_extension();
    prompts.push_back({.name = name.string(), .text = caption});
  }
  std::sort(prompts.begin(), prompts.end(),
            [](const Prompt& a, const Prompt& b) { return a.name < b.name; });
  return prompts;
}

/// Of a dataset folder (metas/NAME.txt and metas/CAMERA/NAME.txt, by name) or a JSONL file (its
/// order). Throws Error naming the line on anything else, on none at all, and on two of one name.
/// `needs_text`: a line without a prompt is refused.
inline std::vector<Prompt> read_prompts(const std::filesystem::path& path, bool needs_text = true) {
  std::vector<Prompt> prompts = std::filesystem::is_directory(path)
                                    ? read_captions(path / "metas")
                                    : read_prompt_lines(path, needs_text);
  require(!prompts.empty(), path.string(), ": holds no prompts");
  std::set<std::string> names;
  for (const Prompt& prompt : prompts)
    require(names.insert(prompt.name).second, prompt.where.empty() ? path.string() : prompt.where,
            ": two prompts are named ", prompt.name, " (give them a `name`)");
  return prompts;
}

}  // namespace cosmos::tools
