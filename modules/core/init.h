#pragma once

// Initialisation of fresh weights, and how to leave it out when a checkpoint follows.

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// While one lives, modules constructed on this thread leave their parameters uninitialised: no
/// time and no touched memory for values that a checkpoint overwrites. Whoever opens one must fill
/// every parameter and buffer afterwards.
class SkipInit {
 public:
  SkipInit();
  ~SkipInit();
  SkipInit(const SkipInit&) = delete;
  SkipInit& operator=(const SkipInit&) = delete;

  /// Whether one lives on this thread; constructors ask before they write values.
  static bool active();
};

/// Fills `weight` in place from a normal distribution of deviation `std` cut at ±3 std (by inverse
/// CDF, so that no value is drawn twice). Draws from torch's default generator.
void truncated_normal_(Tensor weight, double std);

}  // namespace cosmos::modules
