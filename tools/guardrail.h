#pragma once

// --guardrail CMD of cosmos-generate: a program that is asked about every prompt before anything is
// generated, and about every clip before it is handed over.
//
// It is started once (/bin/sh -c CMD) and reads a JSON object a line:
//   {"stage": "prompt", "prompt": "...", "negative_prompt": "..."}
//   {"stage": "clip", "clip": "out.mp4", "prompt": "..."}
// and answers each with a line {"allowed": true}, or {"allowed": false, "reason": "..."}.

#include <memory>
#include <string>

#include "modules/hub/json_file.h"
#include "trainer/recipes/line_program.h"

namespace cosmos::tools {

class Guardrail {
 public:
  struct Verdict {
    bool allowed = true;
    std::string reason{};
  };

  /// `command` empty: there is none, and everything is allowed.
  explicit Guardrail(const std::string& command) : command_(command) {
    constexpr int kMinutes = 10;  // a clip may take a network its time
    if (!command.empty())
      program_ = std::make_unique<trainer::LineProgram>(
          std::vector<std::string>{"/bin/sh", "-c", command}, "--guardrail", kMinutes * 60);
  }

  /// Throws Error when the program fails, or answers with anything else.
  Verdict ask(const Json& question) {
    if (!program_) return {};
    const std::string line = program_->ask(question.dump());
    const Json answer = modules::parse_json(line, "--guardrail: its answer");
    require(answer.is_object() && answer.contains("allowed") && answer["allowed"].is_boolean() &&
                (!answer.contains("reason") || answer["reason"].is_string()),
            "--guardrail: expected {\"allowed\": true or false, \"reason\": \"...\"}, got ", line);
    return {answer["allowed"].get<bool>(), answer.value("reason", std::string())};
  }

  /// Throws Error when the prompt is refused.
  void check_prompt(const std::string& prompt, const std::string& negative_prompt) {
    const Verdict verdict =
        ask({{"stage", "prompt"}, {"prompt", prompt}, {"negative_prompt", negative_prompt}});
    require(verdict.allowed, "--guardrail: the prompt is refused: ", verdict.reason);
  }

  /// What the record of a clip says; its prompt was allowed, or there would be no clip.
  Json record(const Verdict& clip) const {
    if (!program_) return "none";
    Json state{{"command", command_},
               {"prompt", "allowed"},
               {"clip", clip.allowed ? "allowed" : "refused"}};
    if (!clip.reason.empty()) state["reason"] = clip.reason;
    return state;
  }

 private:
  std::string command_;
  std::unique_ptr<trainer::LineProgram> program_;
};

}  // namespace cosmos::tools
