#pragma once

// Learning rate as a function of the step: pure, so that a resumed run needs no state for it.

#include "trainer/config/config.h"

namespace cosmos::trainer {

/// Factor on the peak learning rate at `step` (0 is the first step) of a run of `total_steps`:
///   warm-up   (step + 1) / warmup_steps                               while step < warmup_steps
///   constant  1
///   linear    1 - (1 - min_factor) t                                  t in [0, 1] from the end of
///   cosine    min_factor + (1 - min_factor) (1 + cos(pi t)) / 2       the warm-up to decay_steps
double lr_factor(const ScheduleConfig& schedule, int64_t total_steps, int64_t step);

}  // namespace cosmos::trainer
