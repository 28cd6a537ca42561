#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>

#include "ops/dropout/dropout.h"
#include "ops/lora_linear/lora_linear.h"

namespace cosmos::ops::reference {

at::Tensor lora_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                       const LoraUpdate& lora) {
  const at::Tensor seen =
      lora.dropout > 0 ? seeded_dropout(x, lora.dropout, lora.seeds, lora.slice) : x;
  return at::linear(x, weight, bias) + at::linear(at::linear(seen, lora.a), lora.b) * lora.scale;
}

}  // namespace cosmos::ops::reference
