#include "modules/tokenizer/time_cache.h"

namespace cosmos::modules {

int64_t TimeCache::bytes() const {
  int64_t total = 0;
  for (const auto& [key, tensor] : slots_)
    if (tensor.defined()) total += static_cast<int64_t>(tensor.nbytes());
  return total;
}

Tensor swap_past(const Tensor& x, int64_t front, int64_t keep, FrontPad pad, TimeCache* cache,
                 const torch::nn::Module& layer) {
  if (!cache) return {};
  Tensor& slot = cache->slot(layer);
  const Tensor past = slot;
  Tensor recent = x;
  if (x.size(1) < keep) {
    std::vector<int64_t> shape = x.sizes().vec();
    shape[1] = front;
    const Tensor before = past.defined()            ? past
                          : pad == FrontPad::kZeros ? torch::zeros(shape, x.options())
                                                    : x.narrow(1, 0, 1).expand(shape);
    recent = torch::cat({before, x}, 1);
  }
  // A clone, so that the few frames do not keep the whole chunk alive.
  slot = recent.narrow(1, recent.size(1) - keep, keep).clone();
  return past;
}

}  // namespace cosmos::modules
