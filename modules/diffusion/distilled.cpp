// The sampler of few-step students.

#include "modules/diffusion/sampler_impl.h"

namespace cosmos::modules {

namespace {

bool is_class(const Json& scheduler, const char* wanted) {
  const auto name = scheduler.find("_class_name");
  return name != scheduler.end() && *name == wanted;
}

}  // namespace

bool is_one_step(const Json& scheduler) {
  return is_class(scheduler, OneStepConfig::kClassName);
}

bool is_distilled(const Json& scheduler) {
  return is_class(scheduler, DistilledConfig::kClassName) || is_one_step(scheduler);
}

std::vector<double> DistilledSampler::timesteps() const {
  std::vector<double> times = levels();
  for (double& time : times) time *= 1000;
  return times;
}

Tensor DistilledSampler::step(const Tensor& output, const Tensor& x) {
  check_not_done();
  return step_x0(x - sigma() * output, x);
}

Tensor DistilledSampler::step_x0(const Tensor& x0, const Tensor& x) {
  check_not_done();
  if (position_ == 0) noise_ = x;
  const double next = next_sigma();
  ++position_;
  return next > 0 ? (1 - next) * x0 + next * noise_ : x0;
}

}  // namespace cosmos::modules
