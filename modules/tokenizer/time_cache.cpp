#include "modules/tokenizer/time_cache.h"

namespace cosmos::modules {

int64_t TimeCache::bytes() const {
  int64_t total = 0;
  for (const auto& [key, tensor] : slots_)
    if (tensor.defined()) total += static_cast<int64_t>(tensor.nbytes());
  return total;
}

Tensor with_past(const Tensor& x, int64_t front, int64_t keep, FrontPad pad, TimeCache* cache,
                 const torch::nn::Module& layer) {
  Tensor* slot = cache ? &cache->slot(layer) : nullptr;
  Tensor before;
  if (slot && slot->defined()) {
    before = *slot;
  } else if (front > 0) {
    std::vector<int64_t> shape = x.sizes().vec();
    shape[1] = front;
    before = pad == FrontPad::kZeros ? torch::zeros(shape, x.options())
                                     : x.narrow(1, 0, 1).expand(shape);
  }
  Tensor y = before.defined() ? torch::cat({before, x}, 1) : x;
  // A clone, so that the few frames do not keep the whole chunk alive.
  if (slot) *slot = y.narrow(1, y.size(1) - keep, keep).clone();
  return y;
}

}  // namespace cosmos::modules
