#pragma once

// Prompts as the embeddings that a pipeline's transformer reads.
//
//   auto encoder = PromptEncoder::load("Cosmos-Predict2-2B-Video2World");
//   Tensor embeds = encoder->encode({"A robot arm picks up a red cube."});  // [1, 512, 1024]
//
// T5 (Predict1, Predict2, Transfer1): the last hidden state, zero where the prompt has ended.
// Reason1, which is Qwen2.5-VL (Predict2.5, Transfer2.5): the prompt in a chat with a fixed system
// message; every layer's hidden state, normalised (reason_embeddings). Padding is read and kept, as
// the released models were trained. Sources: diffusers' Cosmos pipelines, which say the same.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "modules/hub/registry.h"
#include "modules/text/t5/encoder.h"
#include "modules/text/tokenizer.h"
#include "modules/vlm/language_model.h"

namespace cosmos::modules {

inline constexpr int64_t kPromptTokens = 512;  ///< what every released model was trained with

class PromptEncoder {
 public:
  virtual ~PromptEncoder() = default;

  /// Of a pipeline folder: text_encoder/ and tokenizer/. Throws Error when either is missing or the
  /// encoder is of a class that no Cosmos pipeline has.
  static std::unique_ptr<PromptEncoder> load(const std::filesystem::path& pipeline,
                                             const LoadOptions& options = {});
  static std::unique_ptr<PromptEncoder> load(const std::filesystem::path& text_encoder,
                                             const std::filesystem::path& tokenizer,
                                             const LoadOptions& options);
  /// Whether `pipeline` has a text encoder to load.
  static bool is_in(const std::filesystem::path& pipeline);

  /// Without gradients -> [prompts, length, width()]. A longer prompt is cut at `length` tokens;
  /// `cut` receives how many of them were. On the encoder's device. Throws Error when a prompt is
  /// not UTF-8.
  virtual Tensor encode(const std::vector<std::string>& prompts, int64_t length = kPromptTokens,
                        int64_t* cut = nullptr) = 0;
  /// Numbers a token.
  virtual int64_t width() const = 0;
};

/// Of a loaded T5 and its tokenizer.
class T5PromptEncoder : public PromptEncoder {
 public:
  T5PromptEncoder(std::shared_ptr<T5EncoderModel> model,
                  std::shared_ptr<const TextTokenizer> tokenizer)
      : model_(std::move(model)), tokenizer_(std::move(tokenizer)) {}
  Tensor encode(const std::vector<std::string>& prompts, int64_t length, int64_t* cut) override;
  int64_t width() const override { return model_->config().d_model; }

 private:
  std::shared_ptr<T5EncoderModel> model_;
  std::shared_ptr<const TextTokenizer> tokenizer_;
};

/// Of a loaded Qwen2.5-VL and its tokenizer.
class ReasonPromptEncoder : public PromptEncoder {
 public:
  ReasonPromptEncoder(std::shared_ptr<LanguageModel> model,
                      std::shared_ptr<const TextTokenizer> tokenizer)
      : model_(std::move(model)), tokenizer_(std::move(tokenizer)) {}
  Tensor encode(const std::vector<std::string>& prompts, int64_t length, int64_t* cut) override;
  int64_t width() const override;

 private:
  std::shared_ptr<LanguageModel> model_;
  std::shared_ptr<const TextTokenizer> tokenizer_;
};

}  // namespace cosmos::modules
