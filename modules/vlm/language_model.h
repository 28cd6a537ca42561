#pragma once

// The models of Cosmos Reason: Qwen2.5-VL (Reason1), Qwen3-VL (Reason2) and its mixture of experts,
// and language models alone (Qwen2, Qwen3, Qwen3-MoE, Llama ForCausalLM). Parameter names and
// numbers are transformers' (5.23).
//
//   auto model = load<LanguageModel>(...);
//   Tensor h = model->forward({.input_ids = ids, .pixel_values = pixels, ...});   // [B, L, D]
//   Tensor logits = model->logits(h);
//
// B sequences of L tokens, D width, V vocabulary.

#include <memory>

#include "modules/core/model.h"
#include "modules/vlm/decoder.h"
#include "modules/vlm/positions.h"
#include "modules/vlm/vision_tower.h"

namespace cosmos::modules {

/// One call. Undefined tensors are left out. Of a packed call B is 1 and `offsets` says where
/// sequences begin; images and videos follow the order of their tokens.
struct LanguageModelInputs {
  Tensor input_ids;            ///< int64 [B, L]
  Tensor attention_mask;       ///< [B, L], 0 = padding, on either side
  Tensor position_ids;         ///< int64 [3, B, L] or [B, L] (of [4, B, L] the last 3)
  Tensor mm_token_type_ids;    ///< int [B, L], TokenType; token_types() when undefined
  Tensor pixel_values;         ///< [patches, C T P P]
  Tensor image_grid_thw;       ///< int64 [images, 3]
  Tensor pixel_values_videos;  ///< [patches, C T P P]
  Tensor video_grid_thw;       ///< int64 [videos, 3]
  Tensor second_per_grid_ts;   ///< [videos], seconds between frames of a grid (Qwen2.5-VL)
  std::vector<int64_t> offsets = {};
};

/// 1 where a token stands for an image's part, 2 for a video's, 0 elsewhere: mm_token_type_ids as
/// the processor makes them, of the shape of input_ids.
Tensor token_types(const LanguageModelConfig& config, const Tensor& input_ids);

class LanguageModel : public Model {
 public:
  /// Fresh weights: products and embeddings normal with deviation initializer_range, norms one,
  /// biases zero. Inside SkipInit nothing is written.
  explicit LanguageModel(LanguageModelConfig config);

  std::string class_name() const override { return config_.class_name; }
  Json config_json() const override { return config_.to_json(); }
  const LanguageModelConfig& config() const { return config_; }

  /// Hidden states after the final norm: [B, L, D]. With `cache` they are of the tokens given,
  /// which follow those in the cache.  `states`: receives the hidden states of transformers'
  /// output_hidden_states, [B, L, D] each: the embeddings, after every layer, the last one normed.
  Tensor forward(const LanguageModelInputs& inputs, KvCache* cache = nullptr,
                 Tensors* states = nullptr);
  bool has_vision() const { return visual_ != nullptr; }
  /// What the vision tower makes of patches, get_image_features() of transformers: [tokens, D].
  /// Throws Error without one.
  Tensor vision_tokens(const Tensor& pixels, const Grids& grids);
  /// Training: calls without images or videos run the vision tower, too, on one black token that
  /// adds nothing. So its weights have a gradient in every step, zero there, however a step's
  /// conversations are dealt to micro-batches and ranks, and ranks gather its blocks together.
  void set_always_sees(bool always) { always_sees_ = always; }

  /// [..., D] -> [..., V]
  Tensor logits(const Tensor& hidden);
  /// Runs `fn` on hidden states and the head as the head's block: losses that never make logits
  /// (modules/core/linear.h), whose classes may be split over ranks. Recomputation runs `fn` again
  /// in backward: it must hold what it uses.
  using HeadFn = std::function<Tensor(const Tensor& hidden, const Linear& head)>;
  Tensor run_head(const Tensor& hidden, const HeadFn& fn);

  /// int64 [3, B, L], as transformers derives them.
  Tensor positions(const LanguageModelInputs& inputs) const;

  /// "forward" with LanguageModelInputs' names -> `logits`; "generate": see run_generate().
  TensorMap run(const std::string& method, const TensorMap& inputs) override;

  bool gathers_tokens() const override { return true; }
  /// Of models without vision: layers of others take features that no block before them hands on.
  std::vector<std::string> block_order() const override;
  ParallelPlan parallel_plan() const override;
  bool reads_tokens(const std::string& linear) const override {
    return linear.rfind(text_prefix_ + "layers.", 0) == 0;
  }
  std::string file_key(const std::string& name) const override;
  TensorMap from_file(TensorMap tensors) const override;
  TensorMap to_file(TensorMap tensors) const override;

 private:
  void check(const LanguageModelInputs& inputs) const;
  Tensor run_layers(Tensor x, const SequencePlan& plan, const Tensor& visual_rows,
                    const Tensors& deepstack, Tensors* states);
  /// `see`: run the vision tower even where there is nothing to see.
  Tensor embed(const LanguageModelInputs& inputs, bool see, Tensor& visual_rows,
               Tensors& deepstack);
  Tensor see_nothing(const Tensor& x);
  PositionGrids position_grids(const LanguageModelInputs& inputs) const;
  RunBlock block_runner();
  void initialise();

  LanguageModelConfig config_;
  RopeConfig rope_;
  std::string text_prefix_;  ///< "model." or "model.language_model."
  std::shared_ptr<VisionTower> visual_;
  Embedding embed_tokens_{nullptr};
  std::vector<DecoderLayer> layers_;
  RmsNorm norm_{nullptr};
  Linear lm_head_{nullptr};
  bool always_sees_ = false;
};

/// Sorts named tensors into LanguageModelInputs. Throws Error on a name that the class does not
/// know and on a missing one that it needs.
LanguageModelInputs language_model_inputs(const TensorMap& inputs, const std::string& class_name);

}  // namespace cosmos::modules
