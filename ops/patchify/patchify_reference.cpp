#include <ATen/core/Tensor.h>

#include "ops/patchify/patchify.h"

namespace cosmos::ops::reference {

at::Tensor patchify(const at::Tensor& x, at::IntArrayRef patch, PatchOrder order) {
  const int64_t pt = patch[0], ph = patch[1], pw = patch[2];
  const int64_t B = x.size(0), C = x.size(1), t = x.size(2) / pt, h = x.size(3) / ph,
                w = x.size(4) / pw;
  const at::Tensor blocks = x.reshape({B, C, t, pt, h, ph, w, pw});
  const at::Tensor tokens = order == PatchOrder::kChannelsFirst
                                ? blocks.permute({0, 2, 4, 6, 1, 3, 5, 7})
                                : blocks.permute({0, 2, 4, 6, 5, 7, 3, 1});
  return tokens.reshape({B, t, h, w, C * pt * ph * pw});
}

at::Tensor unpatchify(const at::Tensor& tokens, at::IntArrayRef patch, PatchOrder order) {
  const int64_t pt = patch[0], ph = patch[1], pw = patch[2];
  const int64_t B = tokens.size(0), t = tokens.size(1), h = tokens.size(2), w = tokens.size(3),
                C = tokens.size(4) / (pt * ph * pw);
  const at::Tensor blocks =
      order == PatchOrder::kChannelsFirst
          ? tokens.reshape({B, t, h, w, C, pt, ph, pw})
          : tokens.reshape({B, t, h, w, ph, pw, pt, C}).permute({0, 1, 2, 3, 7, 6, 4, 5});
  return blocks.permute({0, 4, 1, 5, 2, 6, 3, 7}).reshape({B, C, t * pt, h * ph, w * pw});
}

}  // namespace cosmos::ops::reference
