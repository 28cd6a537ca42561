#pragma once

// --prompts of cosmos-generate: a JSONL file, one clip a line. A line's keys are the options of the
// command line with _ for -; they take the place of those given there.

#include <cxxopts.hpp>
#include <filesystem>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "modules/core/fields.h"
#include "tools/controls.h"
#include "tools/program.h"
#include "tools/prompt_list.h"

namespace cosmos::tools {

/// One clip to generate.
struct Job {
  cxxopts::ParseResult args;  ///< as if this were a command of its own
  std::string where;          ///< FILE:LINE; empty: the command line itself
};

/// The clips to generate. A line of a list that fails is told at once and left out from then on;
/// the others go on. The command line's own clip throws what it meets.
class JobList {
 public:
  using Tell = std::function<void(const std::string& failure)>;  ///< one line
  JobList(std::vector<Job> jobs, Tell tell)
      : jobs_(std::move(jobs)), failed_(jobs_.size(), false), tell_(std::move(tell)) {}

  template <typename Fn>
  void each(Fn fn) {
    for (std::size_t i = 0; i < jobs_.size(); ++i) {
      if (failed_[i]) continue;
      try {
        fn(jobs_[i]);
      } catch (const std::exception& error) {
        if (jobs_[i].where.empty()) throw;
        failed_[i] = true;
        tell_(jobs_[i].where + ": " + one_line(error));
      }
    }
  }

  std::size_t size() const { return jobs_.size(); }
  std::size_t failures() const {
    return static_cast<std::size_t>(std::count(failed_.begin(), failed_.end(), true));
  }
  bool any_left() const { return failures() < size(); }
  /// Throws Error when a clip was not made.
  void finish() const {
    require(failures() == 0, failures(), " of ", size(), " clips were not made");
  }

 private:
  std::vector<Job> jobs_;
  std::vector<bool> failed_;
  Tell tell_;
};

/// What a line may set; the rest is the same for all of them.
inline const std::vector<std::string>& line_options() {
  static const std::vector<std::string> kNames = {"prompt",
                                                  "negative-prompt",
                                                  "inputs",
                                                  "image",
                                                  "video",
                                                  "view",
                                                  "view-prompt",
                                                  "start",
                                                  "height",
                                                  "width",
                                                  "num-frames",
                                                  "chunk-frames",
                                                  "overlap",
                                                  "fps",
                                                  "steps",
                                                  "guidance",
                                                  "seed",
                                                  "condition-frames",
                                                  "condition-time",
                                                  "augment-sigma",
                                                  "actions",
                                                  "action-scale",
                                                  "gripper-scale",
                                                  "control",
                                                  "control-from",
                                                  "control-start",
                                                  "control-strength",
                                                  "control-weight",
                                                  "posterior",
                                                  "output",
                                                  "output-tensors"};
  return kNames;
}

/// A file that a line names: from the list's folder, unless it is absolute.
inline std::string beside(const std::filesystem::path& list, const std::string& file) {
  return file.empty() ? file : (list.parent_path() / file).string();
}

/// NAME[=FILE][:WEIGHT][@MASK] with its files beside the list.
inline std::string control_beside(const std::filesystem::path& list, const std::string& text) {
  const ControlArgument control = parse_control(text);
  std::string result = control.name;
  if (!control.file.empty()) result += "=" + beside(list, control.file);
  result += ":" + std::to_string(control.weight);
  if (control.mask.empty()) return result;
  return result + "@" + (is_number_list(control.mask) ? control.mask : beside(list, control.mask));
}

/// A value as it would stand on the command line.
inline std::string option_text(const Json& value, const std::string& where) {
  require(value.is_string() || value.is_number(), where, ": expected a text or a number, got ",
          modules::describe(value));
  return value.is_string() ? value.get<std::string>() : value.dump();
}

/// The line's settings as arguments: --name=value.
inline std::vector<std::string> line_arguments(const Prompt& line,
                                               const std::filesystem::path& list,
                                               const std::filesystem::path& folder) {
  static const std::set<std::string> kFiles = {"inputs", "image", "video", "control-from",
                                               "actions"};
  std::vector<std::string> arguments = {"--output=" + (folder / (line.name + ".mp4")).string()};
  for (const auto& [key, value] : line.line.items()) {
    if (key == "name") continue;
    const std::string where = line.where + ": " + key;
    std::string name = key == "caption" ? "prompt" : key;
    std::replace(name.begin(), name.end(), '_', '-');
    const auto& known = line_options();
    if (std::find(known.begin(), known.end(), name) == known.end() || key.find('-') != key.npos) {
      std::string near = modules::nearest(name, known);
      std::replace(near.begin(), near.end(), '-', '_');
      fail(where, ": a line has no such setting",
           near.empty() ? "" : " (did you mean " + near + "?)");
    }
    static const std::set<std::string> kLists = {"control", "view", "view-prompt"};
    const std::vector<Json> values = kLists.count(name) && value.is_array()
                                         ? value.get<std::vector<Json>>()
                                         : std::vector{value};
    for (const Json& one : values) {
      std::string text = option_text(one, where);
      if (kFiles.count(name)) text = beside(list, text);
      if (name == "control") text = control_beside(list, text);
      if (const auto equal = text.find('='); name == "view" && equal != std::string::npos)
        text = text.substr(0, equal + 1) + beside(list, text.substr(equal + 1));
      if (name == "output" || name == "output-tensors") text = (folder / text).string();
      arguments.push_back("--" + name + "=" + text);
    }
  }
  return arguments;
}

/// The command line as one job, or the lines of --prompts. Throws Error naming the line that has a
/// setting which is none, a value of another type, or the output of a line before it.
inline std::vector<Job> read_jobs(cxxopts::Options& options, const cxxopts::ParseResult& args,
                                  int argc, const char* const* argv) {
  if (!args.count("prompts")) return {{.args = args, .where = ""}};
  for (const char* name : {"prompt", "save-pipeline", "output-tensors"})
    require(!args.count(name), "--", name, " does not go with --prompts",
            std::string(name) == "save-pipeline" ? "" : ": its lines say it");
  const std::filesystem::path list = args["prompts"].as<std::string>();
  std::vector<Job> jobs;
  std::set<std::string> outputs;
  for (const Prompt& line : read_prompts(list, /*needs_text=*/false)) {
    std::vector<std::string> words(argv, argv + argc);
    for (std::string& word : line_arguments(line, list, args["output"].as<std::string>()))
      words.push_back(std::move(word));
    std::vector<const char*> pointers;
    for (const std::string& word : words) pointers.push_back(word.c_str());
    try {
      jobs.push_back({.args = options.parse(static_cast<int>(pointers.size()), pointers.data()),
                      .where = line.where});
    } catch (const cxxopts::exceptions::exception& error) {
      fail(line.where, ": ", error.what());
    }
    const std::string output = jobs.back().args["output"].as<std::string>();
    require(outputs.insert(output).second, line.where, ": output: ", output,
            " is another line's already");
  }
  return jobs;
}

}  // namespace cosmos::tools
