#include "trainer/optim/schedule.h"

#include <algorithm>
#include <cmath>

namespace cosmos::trainer {

double lr_factor(const ScheduleConfig& schedule, int64_t total_steps, int64_t step) {
  const auto warmup = static_cast<double>(schedule.warmup_steps);
  if (step < schedule.warmup_steps) return static_cast<double>(step + 1) / warmup;
  if (schedule.kind == "constant") return 1;
  const auto end =
      static_cast<double>(schedule.decay_steps > 0 ? schedule.decay_steps : total_steps);
  const double span = std::max(end - warmup, 1.0);
  const double t = std::clamp((static_cast<double>(step) - warmup) / span, 0.0, 1.0);
  const double fall = schedule.kind == "linear" ? 1 - t : 0.5 * (1 + std::cos(M_PI * t));
  return schedule.min_factor + (1 - schedule.min_factor) * fall;
}

}  // namespace cosmos::trainer
