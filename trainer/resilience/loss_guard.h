#pragma once

// Whether a step's loss is one to learn from. What it says follows from numbers that are the same
// on every rank, so all decide alike.

#include <cstdint>
#include <deque>
#include <string>

#include "modules/hub/json_file.h"

namespace cosmos::trainer {

class LossGuard {
 public:
  /// A spike lies more than `sigmas` standard deviations above the mean of the last losses, of at
  /// most kWindow and at least kFew; 0: nothing is a spike.
  explicit LossGuard(double sigmas) : sigmas_(sigmas) {}

  static constexpr std::size_t kWindow = 128, kFew = 16;

  bool watches_spikes() const { return sigmas_ > 0; }
  bool is_spike(double loss) const;
  /// A step whose update was made.
  void accept(double loss);

  /// Counts steps left out in a row; throws Error beyond a limit: the run does not recover.
  void left_out();
  /// Counts returns to the checkpoint of `step`; throws Error when returning there does not help.
  void rolled_back(int64_t step);

  /// The last losses, for the checkpoint: a run that goes on judges as if it had not been
  /// interrupted.
  Json state() const { return losses_; }
  void load_state(const Json& state) { losses_ = state.get<std::deque<double>>(); }

 private:
  double sigmas_;
  std::deque<double> losses_;
  int64_t left_out_ = 0;
  int64_t back_to_ = -1, times_back_ = 0;
};

}  // namespace cosmos::trainer
