#pragma once

// The state of delayed scaling (fp8_linear.h) as the linear layer uses it.

#include <ATen/core/Tensor.h>
#include <optional>

#include "ops/fp8/fp8_linear.h"

namespace cosmos::ops {

/// Position in Fp8Delayed's dimension of 3.
enum class Fp8Operand : int64_t { kInput, kWeight, kGradient };

/// The operand's scale, a number; none where the state is empty (current scaling).
std::optional<at::Tensor> fp8_delayed_scale(const Fp8Delayed& state, Fp8Operand which);

/// Raises the operand's newest amax.
void fp8_delayed_record(const Fp8Delayed& state, Fp8Operand which, const at::Tensor& amax);

/// Throws Error unless the state is one layer's and lies with x.
void fp8_delayed_check(const char* op, const Fp8Delayed& state, const at::Tensor& x);

}  // namespace cosmos::ops
