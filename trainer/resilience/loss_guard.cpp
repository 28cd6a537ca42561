#include "trainer/resilience/loss_guard.h"

#include <algorithm>
#include <cmath>

#include "ops/core/error.h"

namespace cosmos::trainer {
namespace {

constexpr int64_t kMostLeftOut = 20;
constexpr int64_t kMostTimesBack = 3;

}  // namespace

bool LossGuard::is_spike(double loss) const {
  if (sigmas_ <= 0 || losses_.size() < kFew || !std::isfinite(loss)) return false;
  double sum = 0, squares = 0;
  const auto n = static_cast<double>(losses_.size());
  for (const double x : losses_) sum += x;
  const double mean = sum / n;
  for (const double x : losses_) squares += (x - mean) * (x - mean);
  // Losses that hardly vary must not make every wiggle a spike.
  const double deviation = std::max(std::sqrt(squares / n), 0.01 * std::abs(mean));
  return loss > mean + sigmas_ * deviation;
}

void LossGuard::accept(double loss) {
  left_out_ = 0;
  losses_.push_back(loss);
  if (losses_.size() > kWindow) losses_.pop_front();
}

void LossGuard::left_out() {
  require(
      ++left_out_ <= kMostLeftOut, kMostLeftOut,
      " steps in a row were left out (trainer.on_nonfinite, trainer.on_spike); the run does not "
      "recover: lower trainer.optimizer.lr, or look at the data");
}

void LossGuard::rolled_back(int64_t step) {
  times_back_ = step == back_to_ ? times_back_ + 1 : 1;
  back_to_ = step;
  require(times_back_ <= kMostTimesBack, "the run went back to the checkpoint of step ", step, " ",
          kMostTimesBack,
          " times without reaching another one: lower trainer.optimizer.lr, or look "
          "at the data");
}

}  // namespace cosmos::trainer
