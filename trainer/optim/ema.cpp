#include "trainer/optim/ema.h"

#include <cmath>

namespace cosmos::trainer {

double power_ema_exponent(double rate) {
  // The cubic is negative at 0 for rate < 0.288 and grows beyond its only positive root: bisect.
  const double t = 1 / (rate * rate);
  const auto f = [t](double x) { return ((x + 7) * x + (16 - t)) * x + (12 - t); };
  double low = 0, high = 1;
  while (f(high) < 0) high *= 2;
  for (int i = 0; i < 200; ++i) {
    const double middle = 0.5 * (low + high);
    (f(middle) < 0 ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

double ema_beta(const EmaConfig& config, int64_t step) {
  if (config.kind == "constant") return config.decay;
  return std::pow(1 - 1 / static_cast<double>(step + 1), power_ema_exponent(config.rate) + 1);
}

Ema::Ema(EmaConfig config, const NamedTensors& masters, NamedTensors parameters,
         const std::shared_ptr<AwayMemory>& away)
    : config_(std::move(config)), masters_(masters), parameters_(std::move(parameters)) {
  torch::NoGradGuard no_grad;
  for (const auto& [name, master] : masters_) {
    Tensor& average = averages_[name];
    average = away ? away->empty(master.sizes(), master.scalar_type())
                   : torch::empty_like(master.detach());
    average.copy_(master);
  }
}

void Ema::restart() {
  torch::NoGradGuard no_grad;
  for (const auto& [name, master] : masters_) averages_.at(name).copy_(master);
}

Ema::Use::Use(Ema* ema) : ema_(ema) {
  if (!ema_) return;
  for (auto& [name, param] : ema_->parameters_) {
    kept_.push_back(param.variable_data());
    param.set_data(ema_->averages_.at(name).to(param.scalar_type()));
  }
}

Ema::Use::~Use() {
  for (std::size_t i = 0; i < kept_.size(); ++i) ema_->parameters_[i].second.set_data(kept_[i]);
}

}  // namespace cosmos::trainer
