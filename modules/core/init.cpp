#include "modules/core/init.h"

#include <cmath>

namespace cosmos::modules {
namespace {

thread_local int skip_depth = 0;

}  // namespace

SkipInit::SkipInit() {
  ++skip_depth;
}
SkipInit::~SkipInit() {
  --skip_depth;
}
bool SkipInit::active() {
  return skip_depth > 0;
}

void truncated_normal_(Tensor weight, double std) {
  torch::NoGradGuard no_grad;
  // X = sqrt(2) erfinv(U) is standard normal for U uniform in (-1, 1); |X| <= 3 where
  // |U| <= erf(3 / sqrt(2)).
  const double bound = std::erf(3.0 / std::sqrt(2.0));
  weight.uniform_(-bound, bound).erfinv_().mul_(std * std::sqrt(2.0));
}

}  // namespace cosmos::modules
