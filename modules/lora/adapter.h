#pragma once

// LoRA (Hu et al., 2021) and DoRA (Liu et al., 2024) on one Linear.
//
//   LoRA:  y = x Wᵀ + b + s (drop(x) Aᵀ) Bᵀ
//   DoRA:  y = x Wᵀ + b + (g - 1) x Wᵀ + g s (drop(x) Aᵀ) Bᵀ,   g = m / ||W + s B A||  (by row,
//          the norm outside the graph, as the paper proposes)
//
// A: [rank, in], B: [out, rank], m: [out]; W stays frozen. x is cast to the adapter's dtype and the
// result back to the base's.

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "modules/core/linear.h"
#include "modules/lora/config.h"

namespace cosmos::modules {

/// What the dropout masks of one forward call are drawn for. A mask is a function of
/// (seed, global sample index, layer), so that recomputing a block repeats it and neither the
/// number of ranks nor a restart changes it.
struct DropoutKey {
  uint64_t seed = 0;
  /// Global sample indices, one for each entry of x's first dimension; empty: no dropout
  /// (validation). Unset: a forward in training mode throws, rather than repeat one mask for ever.
  std::optional<std::vector<int64_t>> samples;
};

/// A as torch's Linear draws a weight (Kaiming with a = sqrt 5), from Philox(seed, kInit, layer).
void draw_lora_A(const Tensor& A, uint64_t seed, int64_t layer);

/// The part of its input that a rank is given where ranks split it evenly.
struct InputPart {
  int64_t token_rank = 0, token_ranks = 1;      ///< of dimension -2
  int64_t feature_rank = 0, feature_ranks = 1;  ///< of the last
};

class LoraAdapter : public LinearAdapter {
 public:
  struct Options {
    int64_t rank = 16;
    double alpha = 16;   ///< kept for files
    double scaling = 1;  ///< s
    double dropout = 0;
    bool dora = false;
    int64_t layer =
        0;  ///< position among the model's adapters; separates streams of random numbers
    std::shared_ptr<DropoutKey> key = nullptr;           ///< one for all adapters of a model
    std::shared_ptr<const LoraConfig> config = nullptr;  ///< the same; for files
  };

  /// A by draw_lora_A; B zero; m the row norms of W: the adapted Linear computes what it did
  /// before.
  LoraAdapter(const LinearImpl& linear, const Options& options, uint64_t seed);

  Tensor adapt(const Tensor& x, const Tensor& base, const LinearImpl& linear) override;
  Tensor forward(const Tensor& x, const LinearImpl& linear) override;

  /// Where W's rows are split so are B's and m, where its columns are, A's columns: every rank
  /// computes its part of the update without further communication.
  std::optional<int64_t> split_dim(const std::string& name, Split split) const override;
  bool reads_weight() const override { return magnitude.defined(); }

  const Options& options() const { return options_; }
  /// Dropout masks are this part of the whole input's from now on.
  void set_input_part(const InputPart& part) { part_ = part; }

  /// s B A in float32, [out, in].
  Tensor delta() const;
  /// ||W + s B A|| by row in float32, [out].
  Tensor row_norm(const Tensor& weight) const;
  /// Whether the adapter changes what `linear` computes.
  bool has_effect(const LinearImpl& linear) const;

  Tensor lora_A, lora_B;
  Tensor magnitude;  ///< undefined without DoRA

 private:
  /// Seeds of the masks for x (ops/dropout): one for each sample, one that they share, or none
  /// where nothing is dropped.
  std::vector<int64_t> dropout_seeds(const Tensor& x) const;
  /// Where x lies in the whole input, as ops/dropout wants it.
  std::vector<int64_t> dropout_slice(const Tensor& x) const;

  Options options_;
  InputPart part_;
};

}  // namespace cosmos::modules
