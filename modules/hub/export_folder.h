#pragma once

// What a folder needs before it leaves the house: to be complete, to carry its base's licence, and
// to say what it is without naming the machine it was made on.

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace cosmos::modules {

/// A folder that appears under its final name only when complete: files are written into a hidden
/// sibling, commit() renames it. Without commit() the destructor removes it.
class ExportFolder {
 public:
  /// Throws Error when `target` exists and is not an empty folder, unless `overwrite`; then the old
  /// one is replaced at commit() and stays whole until then. Only folders that hold a config.json,
  /// model_index.json, adapter_config.json or LoRA file are ever replaced.
  ExportFolder(std::filesystem::path target, bool overwrite);
  ~ExportFolder();
  ExportFolder(const ExportFolder&) = delete;
  ExportFolder& operator=(const ExportFolder&) = delete;

  /// Where to write.
  const std::filesystem::path& path() const { return work_; }
  void commit();

 private:
  std::filesystem::path target_, work_;
  bool replace_ = false, committed_ = false;
};

/// Copies LICENSE*, LICENCE*, NOTICE* and COPYING* files of `base`, or, when it has none, of the
/// folder above it (a component's pipeline). Returns their names, empty when there are none.
std::vector<std::string> carry_licences(const std::filesystem::path& base,
                                        const std::filesystem::path& target);

/// The files of `dir` that make text and pictures into a language model's inputs, and its answers
/// into text: tokenizer, processor, chat template, generation settings. By file name.
std::map<std::string, std::string> text_files(const std::filesystem::path& dir);

struct ModelCard {
  std::string title;
  std::string base_model;                  ///< hub name or plain words
  std::string data;                        ///< what it was trained on
  std::string command;                     ///< how it was made
  std::string library_name;                ///< "diffusers", "transformers" or "peft"
  std::vector<std::string> licences = {};  ///< files carried along
  std::vector<std::string> base_terms =
      {};  ///< licence lines of the base's card, taken over as they are
  bool adapter = false;
};

/// The licence lines (license:, license_name:, license_link:) at the head of `base`/README.md or of
/// the folder above it.
std::vector<std::string> licence_terms(const std::filesystem::path& base);

/// Writes `dir`/README.md. Throws Error when a text holds what looks like a local path or an
/// address of a machine.
void write_model_card(const std::filesystem::path& dir, const ModelCard& card);

/// Throws Error unless `text` is fit for publication; `where` names it.
void require_public(const std::string& text, const std::string& where);

}  // namespace cosmos::modules
