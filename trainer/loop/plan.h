#pragma once

// What a run will need, before anything is allocated or read: for `cosmos-train --plan`.

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/config/config.h"
#include "trainer/core/recipe.h"

namespace cosmos::trainer {

struct Plan {
  int64_t parameters = 0;
  int64_t trained = 0;
  double flops_per_step = 0;        ///< 0: the recipe does not say
  double activation_bytes = 0;      ///< of one micro-batch; 0: the recipe does not say
  double weight_bytes = 0;          ///< the model in its precision
  double gradient_bytes = 0;        ///< as the model's precision, plus float32 sums under bf16
  double optimizer_bytes = 0;       ///< AdamW's two moments, float32
  double master_bytes = 0;          ///< float32 copies under bf16
  double ema_bytes = 0;             ///< float32 averages
  double available_bytes = 0;       ///< free memory here; 0: unknown
  std::vector<std::string> advice;  ///< what to change when it does not fit

  double total_bytes() const {
    return activation_bytes + weight_bytes + gradient_bytes + optimizer_bytes + master_bytes +
           ema_bytes;
  }
};

/// Counts on the model's shape (Recipe::model_for_plan); weights are neither read nor initialised.
Plan make_plan(const Config& config, Recipe& recipe);

/// The plan as a table of text.
std::string format_plan(const Plan& plan, const Config& config);

}  // namespace cosmos::trainer
