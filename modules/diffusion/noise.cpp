#include "modules/diffusion/noise.h"

#include <cmath>
#include <random>

namespace cosmos::modules {

Tensor numpy_normal(uint32_t seed, at::IntArrayRef shape) {
  std::mt19937 twister(seed);
  const auto uniform = [&] {
    const double high = twister() >> 5, low = twister() >> 6;
    return (high * 67108864.0 + low) / 9007199254740992.0;  // (high 2^26 + low) / 2^53
  };
  Tensor out = torch::empty(shape, torch::kFloat32);
  float* data = out.data_ptr<float>();
  const int64_t count = out.numel();
  for (int64_t i = 0; i < count; i += 2) {
    double a = 0, b = 0, radius = 0;
    do {
      a = 2 * uniform() - 1;
      b = 2 * uniform() - 1;
      radius = a * a + b * b;
    } while (radius >= 1 || radius == 0);
    const double factor = std::sqrt(-2 * std::log(radius) / radius);
    data[i] = static_cast<float>(factor * b);
    if (i + 1 < count) data[i + 1] = static_cast<float>(factor * a);
  }
  return out;
}

}  // namespace cosmos::modules
