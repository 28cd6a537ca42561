#pragma once

// moment_codes.h operation by operation, for the plain formula of AdamW.

#include "ops/adamw/adamw.h"

namespace cosmos::ops::reference {

/// `chance`: a scalar, or one an element.
MomentCodes encode_moment(const at::Tensor& moment, bool second, const at::Tensor& chance);

/// moment_chance() of each element.
at::Tensor moment_chances(const at::Tensor& like, int64_t update);

}  // namespace cosmos::ops::reference
