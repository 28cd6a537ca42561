#pragma once

// LoRA on stacked weights [E, out, in] (modules/core/weight_stacks.h): PEFT's target_parameters.
//
//   y_e = x_e W_eᵀ + s (x_e A_eᵀ) B_eᵀ
//
// The parameters lie as in PEFT's files: lora_A [E rank, in], expert by expert, lora_B
// [out, rank E], rank by rank.

#include <cstdint>
#include <memory>

#include "modules/core/weight_stacks.h"
#include "modules/lora/config.h"

namespace cosmos::modules {

class StackLora : public StackAdapter {
 public:
  struct Options {
    int64_t rank = 16;
    double scaling = 1;  ///< s
    int64_t layer = 0;   ///< position among the model's adapters; separates random numbers
    std::shared_ptr<const LoraConfig> config = nullptr;  ///< one for a model; for files
  };
  /// A and B as LoraAdapter draws them.
  StackLora(const Tensor& weight, const Options& options, uint64_t seed);

  Tensors adapt(const Tensors& x, const Tensors& base, const std::vector<int64_t>& index) override;

  const Options& options() const { return options_; }
  /// s B_e A_e of all in float32, [E, out, in].
  Tensor delta() const;

  Tensor lora_A, lora_B;

 private:
  Tensor stacked_A() const;  ///< [E, rank, in]
  Tensor stacked_B() const;  ///< [E, out, rank]

  Options options_;
};

}  // namespace cosmos::modules
