#include "modules/tokenizer/patches.h"

#include "ops/haar/haar.h"

namespace cosmos::modules {
namespace {

// Row `band`, column (row of the block, column of the block): +1 or -1.
Tensor haar_signs(int64_t p) {
  Tensor signs = torch::empty({p * p, p * p}, torch::kFloat32);
  auto sign = signs.accessor<float, 2>();
  for (int64_t band = 0; band < p * p; ++band)
    for (int64_t y = 0; y < p; ++y)
      for (int64_t x = 0; x < p; ++x) {
        bool negative = false;
        // The first level pairs neighbours (bit 0) and is the last digit of the band.
        for (int64_t bit = 0; (1 << bit) < p; ++bit) {
          const int64_t digit = band >> (2 * bit) & 3;
          if ((digit >> 1 & x >> bit & 1) != (digit & y >> bit & 1)) negative = !negative;
        }
        sign[band][y * p + x] = negative ? -1.0f : 1.0f;
      }
  return signs;
}

}  // namespace

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

Tensor patchify_images(const Tensor& video, int64_t p, PatchType type) {
  auto [B, C, T, H, W] = dims<5>(video, "video");
  const Tensor blocks = video.reshape({B, C, T, H / p, p, W / p, p});
  if (type == PatchType::kRearrange)
    return blocks.permute({0, 2, 3, 5, 1, 4, 6}).reshape({B, T, H / p, W / p, C * p * p});
  const Tensor samples =
      blocks.permute({0, 2, 3, 5, 4, 6, 1}).reshape({B, T, H / p, W / p, p * p, C});
  const Tensor bands = torch::matmul(haar_signs(p).to(video.options()) / (p * p), samples);
  return bands.flatten(4);
}

Tensor unpatchify_images(const Tensor& patches, int64_t p, PatchType type) {
  auto [B, T, H, W, width] = dims<5>(patches, "patches");
  const int64_t C = width / (p * p);
  Tensor x;
  if (type == PatchType::kRearrange) {
    x = patches.reshape({B, T, H, W, C, p, p}).permute({0, 4, 1, 2, 5, 3, 6});
  } else {
    const Tensor signs = haar_signs(p).to(patches.options()).t();
    x = torch::matmul(signs, patches.reshape({B, T, H, W, p * p, C}))
            .reshape({B, T, H, W, p, p, C})
            .permute({0, 6, 1, 2, 4, 3, 5});
  }
  return x.reshape({B, C, T, H * p, W * p});
}

}  // namespace cosmos::modules
