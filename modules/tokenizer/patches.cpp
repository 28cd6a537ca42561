#include "modules/tokenizer/patches.h"

#include "ops/haar/haar.h"

namespace cosmos::modules {

Tensor patchify(const Tensor& video, int64_t p, PatchType type, bool first) {
  if (type == PatchType::kHaar && p > 1) return ops::haar_patch(video, p, first);
  Tensor x = video;
  if (first && p > 1) x = torch::cat({x.narrow(2, 0, 1).expand({-1, -1, p - 1, -1, -1}), x}, 2);
  auto [B, C, T, H, W] = dims<5>(x, "video");
  x = x.reshape({B, C, T / p, p, H / p, p, W / p, p}).permute({0, 2, 4, 6, 1, 3, 5, 7});
  return x.reshape({B, T / p, H / p, W / p, C * p * p * p});
}

Tensor unpatchify(const Tensor& patches, int64_t p, PatchType type, bool first) {
  auto [B, T, H, W, width] = dims<5>(patches, "patches");
  if (type == PatchType::kHaar && p > 1) return ops::haar_unpatch(patches, p, first);
  const int64_t C = width / (p * p * p);
  Tensor x = patches.reshape({B, T, H, W, C, p, p, p}).permute({0, 4, 1, 5, 2, 6, 3, 7});
  x = x.reshape({B, C, T * p, H * p, W * p});
  return first ? x.narrow(2, p - 1, x.size(2) - p + 1) : x;
}

Tensor patchify_space(const Tensor& video, int64_t p) {
  auto [B, C, T, H, W] = dims<5>(video, "video");
  const Tensor x = video.reshape({B, C, T, H / p, p, W / p, p}).permute({0, 2, 3, 5, 1, 6, 4});
  return x.reshape({B, T, H / p, W / p, C * p * p});
}

Tensor unpatchify_space(const Tensor& patches, int64_t p) {
  auto [B, T, H, W, width] = dims<5>(patches, "patches");
  const int64_t C = width / (p * p);
  const Tensor x = patches.reshape({B, T, H, W, C, p, p}).permute({0, 4, 1, 2, 6, 3, 5});
  return x.reshape({B, C, T, H * p, W * p});
}

}  // namespace cosmos::modules
