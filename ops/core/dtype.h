#pragma once

// Element types as kernels see them. Kernels have no torch headers, so this is their own enum.

namespace cosmos::ops {

enum class DType : int { kFloat32, kFloat64, kBFloat16, kFloat16 };

}  // namespace cosmos::ops
