#pragma once

// cosmos-convert embed: text embeddings of a dataset's captions, computed once.

#include <cxxopts.hpp>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "modules/hub/json_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/pipeline_folder.h"
#include "modules/hub/safetensors.h"
#include "modules/pipeline/prompt_encoder.h"
#include "modules/registry.h"
#include "tools/program.h"
#include "tools/prompt_list.h"

namespace cosmos::tools {

inline constexpr const char* kEmbedHelp = R"(
Writes OUTPUT/NAME.safetensors for every prompt: `text_embeds` [tokens, width], which training reads
beside its videos. --input takes
  a dataset folder   captions in metas/NAME.txt, or in metas/CAMERA/NAME.txt; the output is its text_embeds/ unless --output says
  a JSONL file       objects with `prompt` or `caption`, and `name` or `video` for NAME (else the
                     line's number: 000001)
--model takes a pipeline folder (text_encoder/, tokenizer/), or a text encoder's folder with
--tokenizer beside it. T5 gives 512 x 1024 numbers a prompt, 1 MiB in bfloat16; Reason1 (Predict2.5)
512 x 100352, 98 MiB.

What is there already is kept, so a run that was stopped goes on; --overwrite computes it again.

Example
  cosmos-convert embed --model Cosmos-Predict2-2B-Video2World --input data/arm --dtype bfloat16

Exit codes: 0 done, 1 bad input (one line on stderr; files written so far stay), 2 wrong usage.)";

struct EmbedArguments {
  std::string model, tokenizer, input, output;
  torch::Dtype dtype = torch::kBFloat16;         ///< of the files
  torch::Dtype compute_dtype = torch::kFloat32;  ///< of the encoder
  int64_t length = modules::kPromptTokens;
  int64_t batch = 1;
  bool overwrite = false;
};

inline std::unique_ptr<modules::PromptEncoder> load_prompt_encoder(
    const EmbedArguments& arguments) {
  namespace fs = std::filesystem;
  if (!arguments.tokenizer.empty())
    return modules::PromptEncoder::load(arguments.model, arguments.tokenizer,
                                        {.dtype = arguments.compute_dtype});
  return modules::PromptEncoder::load(fs::path(arguments.model),
                                      {.dtype = arguments.compute_dtype});
}

inline void embed(const EmbedArguments& arguments) {
  namespace fs = std::filesystem;
  const fs::path output = arguments.output.empty() ? fs::path(arguments.input) / "text_embeds"
                                                   : fs::path(arguments.output);
  std::vector<Prompt> prompts = read_prompts(arguments.input);
  const std::size_t total = prompts.size();
  if (!arguments.overwrite)
    std::erase_if(prompts, [&](const Prompt& prompt) {
      return fs::exists(output / (prompt.name + ".safetensors"));
    });
  if (prompts.size() < total)
    std::cout << total - prompts.size() << " of " << total << " are there already\n";
  if (prompts.empty()) return;
  auto encoder = load_prompt_encoder(arguments);
  fs::create_directories(output);
  const auto step = static_cast<std::size_t>(arguments.batch);
  int64_t cut = 0;
  for (std::size_t first = 0; first < prompts.size(); first += step) {
    std::vector<std::string> texts;
    for (std::size_t i = first; i < std::min(first + step, prompts.size()); ++i)
      texts.push_back(prompts[i].text);
    int64_t here = 0;
    const Tensor embeds = encoder->encode(texts, arguments.length, &here).to(arguments.dtype);
    cut += here;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const fs::path file = output / (prompts[first + i].name + ".safetensors");
      fs::create_directories(file.parent_path());
      modules::save_safetensors(file, {{"text_embeds", embeds[static_cast<int64_t>(i)]}});
    }
  }
  if (cut > 0)
    std::cout << "note: cut at " << arguments.length << " tokens: " << cut << " of "
              << prompts.size() << " prompts\n";
  std::cout << "wrote " << prompts.size() << " of " << arguments.length << " x " << encoder->width()
            << " to " << output.string() << "\n";
}

inline EmbedArguments parse_embed(const cxxopts::ParseResult& parsed) {
  const auto text = [&](const char* key) { return parsed[key].as<std::string>(); };
  require(parsed.unmatched().empty(), "unexpected argument ",
          parsed.unmatched().empty() ? "" : parsed.unmatched()[0]);
  EmbedArguments arguments{.model = text("model"),
                           .tokenizer = text("tokenizer"),
                           .input = text("input"),
                           .output = text("output"),
                           .dtype = modules::parse_dtype(text("dtype")),
                           .compute_dtype = modules::parse_dtype(text("compute-dtype")),
                           .length = parsed["length"].as<int64_t>(),
                           .batch = parsed["batch"].as<int64_t>(),
                           .overwrite = parsed.count("overwrite") > 0};
  require(!arguments.model.empty(), "--model is missing");
  require(!arguments.input.empty(), "--input is missing");
  require(!arguments.output.empty() || std::filesystem::is_directory(arguments.input),
          "--output is missing (only a dataset folder has a place of its own)");
  require(arguments.length > 0, "--length: expected a positive number, got ", arguments.length);
  require(arguments.batch > 0, "--batch: expected a positive number, got ", arguments.batch);
  return arguments;
}

/// The command with its arguments; argv[0] is "embed".
inline int run_embed(int argc, char** argv) {
  cxxopts::Options options("cosmos-convert embed", "Computes the text embeddings of captions.");
  const auto text = [](const char* otherwise) {
    return cxxopts::value<std::string>()->default_value(otherwise);
  };
  auto add = options.add_options();
  add("model", "pipeline folder, or text encoder's with --tokenizer", text(""), "DIR");
  add("tokenizer", "tokenizer's folder", text(""), "DIR");
  add("input", "dataset folder or JSONL file", text(""), "PATH");
  add("output", "folder to write", text(""), "DIR");
  add("dtype", "of the files: float32, bfloat16 or float16", text("bfloat16"), "TYPE");
  add("compute-dtype", "of the encoder: float32 or bfloat16", text("float32"), "TYPE");
  add("length", "tokens a prompt", cxxopts::value<int64_t>()->default_value("512"), "N");
  add("batch", "prompts at once", cxxopts::value<int64_t>()->default_value("1"), "N");
  add("overwrite", "compute again what is there");
  add("h,help", "this text");
  const auto parsed = options.parse(argc, argv);
  if (parsed.count("help")) return std::cout << options.help() << kEmbedHelp << '\n', 0;
  const EmbedArguments arguments = parse_usage([&] { return parse_embed(parsed); });
  modules::register_builtin_models();
  embed(arguments);
  return 0;
}

}  // namespace cosmos::tools
