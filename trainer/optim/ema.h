#pragma once

// Exponential moving average of the weights, kept in float32.

#include "trainer/optim/adamw.h"

namespace cosmos::trainer {

/// Weight that the old average keeps at the update after `step` (0 is the first step):
///   constant  decay
///   power     (1 - 1 / (step + 1))^(exponent + 1), 0 at step 0: a window that grows with the run
///             (Karras et al. 2024, eq. 4 and algorithm 2; Cosmos: rate 0.1)
double ema_beta(const EmaConfig& config, int64_t step);

/// Exponent of the power average of relative width `rate`: the largest real root of
///   x^3 + 7 x^2 + (16 - rate^-2) x + (12 - rate^-2) = 0.
double power_ema_exponent(double rate);

class Ema {
 public:
  /// `masters`: AdamW::masters(); `parameters`: the model's, in the same order. The averages are in
  /// `away` where there is one, else beside the masters.
  Ema(EmaConfig config, const NamedTensors& masters, NamedTensors parameters,
      const std::shared_ptr<AwayMemory>& away = nullptr);

  /// What AdamW::step is given at `step`, to bring the averages forward.
  Average next(int64_t step) const { return {&averages_, ema_beta(config_, step)}; }
  /// Averages become the present weights.
  void restart();
  /// The averages by parameter name.
  const TensorMap& averages() const { return averages_; }

  /// While one lives, the model computes with the averages.
  class Use {
   public:
    explicit Use(Ema* ema);  ///< null: nothing happens
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    Ema* ema_;
    Tensors kept_;
  };

 private:
  EmaConfig config_;
  NamedTensors masters_;
  NamedTensors parameters_;
  TensorMap averages_;
};

}  // namespace cosmos::trainer
