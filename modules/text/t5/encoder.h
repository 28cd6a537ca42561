#pragma once

// T5EncoderModel: the text encoder of Cosmos Predict1, Predict2 and Transfer1 (T5-11B's encoder:
// d_model 1024, 24 layers, 128 heads of 128, d_ff 65536, ReLU). Raffel et al. 2020; transformers
// modeling_t5.py. Attention is not scaled and sees positions by a learned bias alone, which the
// first block holds for all.
//
// B texts, S tokens, D = d_model, H heads of d = d_kv.

#include <vector>

#include "modules/core/layers.h"
#include "modules/core/linear.h"
#include "modules/core/model.h"
#include "modules/text/t5/config.h"

namespace cosmos::modules {

/// Bucket of each distance key - query: exact for near ones, logarithmic up to max_distance, half
/// of the buckets for each direction -> int64 [S, S]
Tensor t5_buckets(int64_t length, const T5Config& config, torch::Device device);

/// Parameters: q, k, v, o .weight; with `positions` relative_attention_bias.weight [buckets, H].
class T5AttentionImpl : public torch::nn::Module {
 public:
  T5AttentionImpl(const T5Config& config, bool positions);
  /// x: [B, S, D], bias: [B | 1, H, S, S], added to the scores -> [B, S, D]
  Tensor forward(const Tensor& x, const Tensor& bias);
  /// buckets: [S, S] -> [1, H, S, S]
  Tensor position_bias(const Tensor& buckets);

 private:
  int64_t head_dim_;
  Linear q_{nullptr}, k_{nullptr}, v_{nullptr}, o_{nullptr};
  Embedding relative_attention_bias_{nullptr};
};
TORCH_MODULE(T5Attention);

/// wo act(wi x), or wo (act(wi_0 x) * wi_1 x).  [B, S, D] -> [B, S, D]
class T5FeedForwardImpl : public torch::nn::Module {
 public:
  explicit T5FeedForwardImpl(const T5Config& config);
  Tensor forward(const Tensor& x);

 private:
  std::string activation_;
  Linear wi_{nullptr}, wi_1_{nullptr}, wo_{nullptr};  // wi_ is wi_0 when there is a wi_1
};
TORCH_MODULE(T5FeedForward);

/// Attention and MLP, each behind a norm and added to its input.  Parameters:
/// layer.0.{SelfAttention.*, layer_norm.weight}, layer.1.{DenseReluDense.*, layer_norm.weight}.
class T5BlockImpl : public torch::nn::Module {
 public:
  T5BlockImpl(const T5Config& config, bool first);
  Tensor forward(const Tensor& x, const Tensor& bias);

  T5Attention attention{nullptr};

 private:
  RmsNorm attention_norm_{nullptr}, feed_forward_norm_{nullptr};
  T5FeedForward feed_forward_{nullptr};
};
TORCH_MODULE(T5Block);

class T5EncoderModel : public Model {
 public:
  /// Throws Error when the config does not make a network; `where` names it. Keys it does not know
  /// are kept.
  explicit T5EncoderModel(const Json& config, const std::string& where = "config");

  std::string class_name() const override { return "T5EncoderModel"; }
  Json config_json() const override;
  const T5Config& config() const { return config_; }

  /// input_ids: int64 [B, S]; attention_mask: [B, S], 0 where a token is padding, undefined: none
  /// is -> last hidden state [B, S, D]
  Tensor forward(const Tensor& input_ids, const Tensor& attention_mask = {});
  /// forward: input_ids, attention_mask -> last_hidden_state
  TensorMap run(const std::string& method, const TensorMap& inputs) override;

  /// Leaves out the decoder of a whole T5.
  TensorMap from_file(TensorMap tensors) const override;

 private:
  void initialise();

  Json source_;
  T5Config config_;
  Embedding shared_{nullptr};
  std::vector<T5Block> blocks_;
  RmsNorm final_layer_norm_{nullptr};
};

}  // namespace cosmos::modules
