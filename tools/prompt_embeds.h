#pragma once

// --prompt and --negative-prompt of cosmos-generate.

#include <cxxopts.hpp>
#include <string>

#include "modules/hub/model_weights.h"
#include "modules/pipeline/prompt_encoder.h"
#include "modules/pipeline/world.h"

namespace cosmos::tools {

/// Fills what --inputs left undefined of `request`'s embeddings; the encoder is gone afterwards,
/// its memory is the transformer's. Returns a note for the user, "" when there is nothing to say.
inline std::string encode_prompts(const cxxopts::ParseResult& args,
                                  modules::WorldRequest& request) {
  if (!args.count("prompt") && !args.count("negative-prompt")) return "";
  require(
      args.count("pipeline") > 0,
      "--prompt: needs --pipeline DIR with text_encoder/ and tokenizer/ (or hand embeddings over "
      "with --inputs)");
  const auto encoder = modules::PromptEncoder::load(
      args["pipeline"].as<std::string>(), modules::parse_dtype(args["dtype"].as<std::string>()));
  int64_t cut = 0;
  const auto fill = [&](const char* option, const char* name, Tensor& embeds) {
    if (!args.count(option)) return;
    require(!embeds.defined(), "--", option, ": --inputs has ", name, " already");
    int64_t here = 0;
    embeds = encoder->encode({args[option].as<std::string>()}, modules::kPromptTokens, &here);
    cut += here;
  };
  fill("prompt", "prompt_embeds", request.prompt_embeds);
  fill("negative-prompt", "negative_prompt_embeds", request.negative_prompt_embeds);
  return cut == 0
             ? ""
             : "note: the prompt was cut at " + std::to_string(modules::kPromptTokens) + " tokens";
}

}  // namespace cosmos::tools
