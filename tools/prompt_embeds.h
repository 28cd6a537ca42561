#pragma once

// --prompt and --negative-prompt of cosmos-generate: every text encoded before the transformer is
// loaded, so that the encoder's memory is the transformer's afterwards.

#include <cxxopts.hpp>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "modules/hub/safetensors.h"
#include "modules/pipeline/prompt_encoder.h"
#include "modules/pipeline/world.h"
#include "tools/generate_jobs.h"
#include "tools/generate_load.h"
#include "tools/generate_views.h"

namespace cosmos::tools {

/// Embeddings by their text. Those beyond the first gigabyte wait on disk (Reason1: 98 MiB a prompt
/// in bfloat16), in a folder that goes with this object.
class PromptEmbeds {
 public:
  /// `folder`: where the waiting ones are kept.
  explicit PromptEmbeds(std::filesystem::path folder) : folder_(std::move(folder)) {}
  ~PromptEmbeds() {
    std::error_code ignored;
    if (!files_.empty()) std::filesystem::remove_all(folder_, ignored);
  }
  PromptEmbeds(const PromptEmbeds&) = delete;
  PromptEmbeds& operator=(const PromptEmbeds&) = delete;

  bool has(const std::string& text) const { return held_.count(text) || files_.count(text); }

  void add(const std::string& text, const Tensor& embeds) {
    constexpr std::size_t kHeldBytes = std::size_t{1} << 30;
    if (held_bytes_ + embeds.nbytes() <= kHeldBytes || held_.empty()) {
      held_bytes_ += embeds.nbytes();
      held_[text] = embeds;
      return;
    }
    std::filesystem::create_directories(folder_);
    const auto file = folder_ / (std::to_string(files_.size()) + ".safetensors");
    modules::save_safetensors(file, {{"text_embeds", embeds}});
    files_[text] = file;
  }

  Tensor of(const std::string& text) const {
    const auto found = held_.find(text);
    return found != held_.end() ? found->second
                                : modules::load_safetensors(files_.at(text)).at("text_embeds");
  }

 private:
  std::filesystem::path folder_;
  std::map<std::string, Tensor> held_;
  std::map<std::string, std::filesystem::path> files_;
  std::size_t held_bytes_ = 0;
};

/// With --offload blocks, or where it would take more than --max-memory whole, block by block.
inline std::unique_ptr<modules::PromptEncoder> load_encoder(const cxxopts::ParseResult& args) {
  const std::filesystem::path pipeline = args["pipeline"].as<std::string>();
  modules::LoadOptions options = load_options(args);
  if (const auto cap = max_memory(args); cap && modules::PromptEncoder::is_in(pipeline))
    options.offload |= modules::weights_in(pipeline / "text_encoder", options.dtype) > *cap;
  return modules::PromptEncoder::load(pipeline, options);
}

/// Encodes the texts of all jobs into `embeds`. Returns a note for the user, "" when there is
/// nothing to say.
inline std::string encode_prompts(const cxxopts::ParseResult& args, JobList& jobs,
                                  PromptEmbeds& embeds) {
  std::unique_ptr<modules::PromptEncoder> encoder;
  int64_t cut = 0;
  jobs.each([&](const Job& job) {
    std::vector<std::string> texts = prompts_of(job.args);
    for (const std::string& text : negative_prompts_of(job.args)) texts.push_back(text);
    for (const std::string& text : texts) {
      if (embeds.has(text)) continue;
      require(args.count("pipeline") > 0,
              "--prompt: needs --pipeline DIR with text_encoder/ and tokenizer/ (or hand "
              "embeddings over with --inputs)");
      if (!encoder) encoder = load_encoder(args);
      int64_t here = 0;
      const bool blank = text == kBlankPrompt;
      Tensor encoded = encoder->encode({blank ? " " : text}, modules::kPromptTokens, &here).cpu();
      if (blank && dynamic_cast<const modules::T5PromptEncoder*>(encoder.get())) encoded.zero_();
      embeds.add(text, encoded);
      cut += here;
    }
  });
  if (cut == 0) return "";
  return "note: " +
         (jobs.size() == 1 ? std::string("the prompt was")
                           : std::to_string(cut) + " prompts were") +
         " cut at " + std::to_string(modules::kPromptTokens) + " tokens";
}

/// Fills what --inputs left undefined of `request`'s embeddings.
inline void take_prompts(const Job& job, const PromptEmbeds& embeds,
                         modules::WorldRequest& request) {
  const auto fill = [&](const char* option, const std::vector<std::string>& texts, const char* name,
                        Tensor& slot) {
    if (texts.empty()) return;
    require(!slot.defined(), "--", option, ": --inputs has ", name, " already");
    Tensors parts;
    for (const std::string& text : texts) parts.push_back(embeds.of(text));
    slot = parts.size() == 1 ? parts.front() : torch::cat(parts, 1);
  };
  fill("prompt", prompts_of(job.args), "prompt_embeds", request.prompt_embeds);
  fill("negative-prompt", negative_prompts_of(job.args), "negative_prompt_embeds",
       request.negative_prompt_embeds);
}

}  // namespace cosmos::tools
