#pragma once

// Answers in several turns: a program outside answers the model's tool calls, the model reads that
// and goes on. What the program says is read, never learned.
//
//   ->  {"episode": 12, "turn": 0, "calls": [{"name": "zoom", "arguments": {"x": 3}}], "truth":
//   "B"}
//   <-  {"results": ["a red cube"]}
//
// One line each, on the program's stdin and stdout; it is started once. An episode has one number
// through all its turns; `truth` is the line's answer, for programs that play a world which knows
// it. A call that is no JSON object with a `name` is answered here, without the program.

#include <optional>
#include <string>
#include <vector>

#include "modules/vlm/conversation_encoder.h"
#include "modules/vlm/generate.h"
#include "trainer/recipes/line_program.h"

namespace cosmos::trainer {

struct ToolConfig {
  std::vector<std::string> command;
  int64_t max_turns = 4;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("command", command, "the program that answers tool calls, and its arguments");
    v("max_turns", max_turns,
      "answers of the model in an episode; calls in the last stay unanswered");
  }
  void check(const std::string& where) const;
};

/// One answer to a question, with the turns it took.
struct Episode {
  modules::Sequence sequence;  ///< the prompt and all that followed
  Tensor labels;               ///< int64 [L]: the model's own tokens, kIgnoreToken elsewhere
  std::string text;            ///< of the last turn
  Json turns = Json::array();  ///< {"answer": ..., "results": [...]} of each turn
  int64_t tokens = 0;          ///< written by the model, in all turns
  bool stopped = false;        ///< the last turn, by a stop token
};

/// What stands in <tool_call>...</tool_call>, in order; null for what is no call.
std::vector<Json> tool_calls(const std::string& answer);

class EpisodePlayer {
 public:
  /// Without `config` every episode has one turn.
  EpisodePlayer(const std::optional<ToolConfig>& config, const std::string& where);

  /// options.answers episodes a prompt, those of the first prompt first; max_new_tokens is a
  /// turn's. truths: one for each prompt.
  std::vector<Episode> play(modules::LanguageModel& model,
                            const modules::ConversationEncoder& encoder,
                            const std::vector<modules::Sequence>& prompts,
                            const std::vector<std::string>& truths,
                            const modules::GenerateOptions& options);

 private:
  std::vector<std::string> ask(const std::vector<Json>& calls, int64_t episode, int64_t turn,
                               const std::string& truth);

  std::optional<ToolConfig> config_;
  std::string where_;
  std::optional<LineProgram> program_;  ///< starts with the first call
  int64_t played_ = 0;                  ///< episodes, over all calls of play
};

}  // namespace cosmos::trainer
