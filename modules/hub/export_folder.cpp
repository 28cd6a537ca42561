#include "modules/hub/export_folder.h"

#include <algorithm>
#include <regex>
#include <set>
#include <sstream>
#include <unistd.h>

#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "ops/core/error.h"

namespace cosmos::modules {
namespace {

namespace fs = std::filesystem;

bool is_ours(const fs::path& dir) {
  std::error_code error;
  for (const char* name : {"config.json", "model_index.json", "adapter_config.json",
                           "pytorch_lora_weights.safetensors"})
    if (fs::is_regular_file(dir / name, error)) return true;
  return false;
}

bool is_licence(const std::string& name) {
  static const std::regex pattern("(licen[sc]e|notice|copying)([^/]*)", std::regex::icase);
  return std::regex_match(name, pattern);
}

// A component's licence often lies one folder up, beside model_index.json.
std::vector<fs::path> homes(const fs::path& base) {
  std::error_code error;
  const fs::path whole = fs::weakly_canonical(base, error);
  std::vector<fs::path> found = {whole};
  if (fs::is_regular_file(whole.parent_path() / "model_index.json", error))
    found.push_back(whole.parent_path());
  return found;
}

}  // namespace

ExportFolder::ExportFolder(fs::path target, bool overwrite) : target_(std::move(target)) {
  std::error_code error;
  target_ = fs::absolute(target_, error).lexically_normal();
  if (!target_.has_filename()) target_ = target_.parent_path();
  const bool exists = fs::exists(fs::symlink_status(target_, error));
  const bool folder = fs::is_directory(target_, error);
  require(!exists || folder, target_.string(), ": is a file, expected a folder to write");
  replace_ = folder && !fs::is_empty(target_, error);
  require(!replace_ || overwrite, target_.string(), ": exists already; choose another folder or ",
          "pass --overwrite");
  require(!replace_ || is_ours(target_), target_.string(),
          ": does not look like an exported model, and is not replaced");
  work_ = target_.parent_path() /
          ("." + target_.filename().string() + ".tmp-" + std::to_string(::getpid()));
  fs::remove_all(work_, error);
  fs::create_directories(work_, error);
  require(!error, target_.string(), ": cannot create the folder: ", error.message());
}

ExportFolder::~ExportFolder() {
  std::error_code error;
  if (!committed_) fs::remove_all(work_, error);
}

void ExportFolder::commit() {
  std::error_code error;
  const fs::path old = work_.string() + "-old";
  if (replace_) {
    fs::rename(target_, old, error);
    require(!error, target_.string(), ": cannot replace: ", error.message());
  }
  fs::rename(work_, target_, error);
  require(!error, target_.string(), ": cannot rename into place: ", error.message());
  committed_ = true;
  if (replace_) fs::remove_all(old, error);
}

std::vector<std::string> carry_licences(const fs::path& base, const fs::path& target) {
  std::vector<std::string> names;
  for (const fs::path& home : homes(base)) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(home, error)) {
      const std::string name = entry.path().filename().string();
      if (!entry.is_regular_file(error) || !is_licence(name)) continue;
      write_file(target / name, read_file(entry.path(), 16u << 20));
      names.push_back(name);
    }
    if (!names.empty()) break;
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::map<std::string, std::string> text_files(const fs::path& dir) {
  static const std::set<std::string> kNames = {"added_tokens.json",
                                               "chat_template.jinja",
                                               "chat_template.json",
                                               "generation_config.json",
                                               "merges.txt",
                                               "preprocessor_config.json",
                                               "processor_config.json",
                                               "spiece.model",
                                               "special_tokens_map.json",
                                               "tokenizer.json",
                                               "tokenizer.model",
                                               "tokenizer_config.json",
                                               "video_preprocessor_config.json",
                                               "vocab.json"};
  std::map<std::string, std::string> files;
  for (const std::string& name : kNames)
    if (is_file(dir / name)) files[name] = read_file(dir / name, 256u << 20);
  return files;
}

std::vector<std::string> licence_terms(const fs::path& base) {
  for (const fs::path& home : homes(base)) {
    std::error_code error;
    if (!fs::is_regular_file(home / "README.md", error)) continue;
    std::istringstream text(read_file(home / "README.md", 16u << 20));
    std::string line;
    std::vector<std::string> terms;
    if (!std::getline(text, line) || line != "---") continue;
    while (std::getline(text, line) && line != "---")
      if (line.rfind("license", 0) == 0 && line.size() < 300) terms.push_back(line);
    if (!terms.empty()) return terms;
  }
  return {};
}

void require_public(const std::string& text, const std::string& where) {
  // /home/x, ~/x, ./x, ../x, C:\x, file:..., user@host at the start of a word
  static const std::regex local(
      R"((^|[\s"'=:,(])(/[\w.]|~/|\.{1,2}/|[A-Za-z]:\\|file:|[\w.-]+@[\w-]))");
  require(!std::regex_search(text, local), where, ": \"", printable(text),
          "\" names a local path or a machine; published files carry names only");
  require(text.find_first_of("\r\n") == std::string::npos, where, ": spans several lines");
}

void write_model_card(const fs::path& dir, const ModelCard& card) {
  for (const auto& [text, where] : {std::pair(card.title, "--name"),
                                    {card.base_model, "--base-model"},
                                    {card.data, "--data"},
                                    {card.command, "command"}})
    require_public(text, where);
  std::ostringstream out;
  out << "---\nlibrary_name: " << card.library_name << "\n";
  if (!card.base_model.empty()) out << "base_model: " << Json(card.base_model).dump() << "\n";
  if (card.base_terms.empty() && !card.licences.empty())
    out << "license: other\nlicense_link: " << card.licences.front() << "\n";
  for (const auto& line : card.base_terms) {
    require_public(line, "the base's model card");
    out << line << "\n";
  }
  out << "tags:\n- cosmos\n- video\n"
      << (card.adapter ? "- lora\n" : "") << "---\n\n# " << card.title << "\n\n";
  out << "| | |\n|---|---|\n";
  out << "| Base model | " << (card.base_model.empty() ? "not stated" : card.base_model) << " |\n";
  out << "| Training data | " << (card.data.empty() ? "not stated" : card.data) << " |\n";
  out << "| Made with | `" << card.command << "` |\n";
  out << "| Licence | ";
  if (card.licences.empty()) out << "not stated";
  for (std::size_t i = 0; i < card.licences.size(); ++i)
    out << (i > 0 ? ", " : "") << "[" << card.licences[i] << "](" << card.licences[i] << ")";
  out << " |\n";
  if (!card.base_model.empty())
    out << "\nA derivative of the base model: its licence and terms of use apply.\n";
  write_file(dir / "README.md", out.str());
}

}  // namespace cosmos::modules
