#pragma once

// Loss on the validation set: the same samples, noise and noise levels every time.

#include <functional>

#include "trainer/core/recipe.h"

namespace cosmos::trainer {

/// Means of the scalars that losses report, over micro-batches.
class ScalarMeans {
 public:
  void add(const std::map<std::string, Tensor>& scalars);
  void write(Json& row, const std::string& prefix = "") const;

 private:
  std::map<std::string, std::pair<double, int64_t>> sums_;
};

/// Means by label, with counts: {"by": {"sigma/0.2-0.4": {"mean": 0.3, "n": 2}}}.
class LabelledMeans {
 public:
  void add(const std::vector<std::pair<std::string, double>>& values);
  void write(Json& row, const std::string& key = "by") const;

 private:
  std::map<std::string, std::pair<double, int64_t>> sums_;
};

struct ValidationOptions {
  torch::Device device = torch::kCPU;  ///< of the model
  int64_t batch_size = 1;
  int64_t max_batches = 0;  ///< 0: the whole set
  StepContext context;
};

/// {"val_loss": ..., "val_by": ..., "val_METRIC": ...}. A sample's index is its item's number.
/// Items that cannot be read are left out and reported. Throws Error when none is left.
Json validation_metrics(Recipe& recipe, modules::Model& model, Dataset& data,
                        const ValidationOptions& options,
                        const std::function<void(const std::string&)>& report);

}  // namespace cosmos::trainer
