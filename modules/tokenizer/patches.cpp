#include "modules/tokenizer/patches.h"

namespace cosmos::modules {

Tensor haar_matrix(int64_t p) {
  require(p >= 1 && (p & (p - 1)) == 0, "patch_size: Haar patches need a power of two, got ", p);
  const int64_t n = p * p * p;
  Tensor matrix = torch::empty({n, n}, torch::kFloat64);
  auto m = matrix.accessor<double, 2>();
  for (int64_t band = 0; band < n; ++band) {
    for (int64_t at = 0; at < n; ++at) {
      const int64_t t = at / (p * p), h = at / p % p, w = at % p;
      int64_t flips = 0;
      for (int64_t level = 0; (1 << level) < p; ++level) {
        const int64_t digit = band >> (3 * level) & 7;
        flips += (digit >> 2 & t >> level & 1) + (digit >> 1 & h >> level & 1) +
                 (digit & w >> level & 1);
      }
      m[band][at] = (flips % 2 ? -1.0 : 1.0) / static_cast<double>(n);
    }
  }
  return matrix;
}

Tensor patchify(const Tensor& video, int64_t p, PatchType type, bool first) {
  Tensor x = video;
  if (first && p > 1) x = torch::cat({x.narrow(2, 0, 1).expand({-1, -1, p - 1, -1, -1}), x}, 2);
  auto [B, C, T, H, W] = dims<5>(x, "video");
  const int64_t n = p * p * p;
  x = x.reshape({B, C, T / p, p, H / p, p, W / p, p}).permute({0, 2, 4, 6, 1, 3, 5, 7});
  x = x.reshape({B, T / p, H / p, W / p, C, n});
  if (type == PatchType::kHaar && p > 1)
    x = torch::matmul(x, haar_matrix(p).t().to(x.options())).transpose(-1, -2);
  return x.reshape({B, T / p, H / p, W / p, n * C});
}

Tensor unpatchify(const Tensor& patches, int64_t p, PatchType type, bool first) {
  auto [B, T, H, W, width] = dims<5>(patches, "patches");
  const int64_t n = p * p * p, C = width / n;
  Tensor x = patches;
  if (type == PatchType::kHaar && p > 1) {
    x = x.reshape({B, T, H, W, n, C}).transpose(-1, -2);
    x = torch::matmul(x, (haar_matrix(p) * static_cast<double>(n)).to(x.options()));
  }
  x = x.reshape({B, T, H, W, C, p, p, p}).permute({0, 4, 1, 5, 2, 6, 3, 7});
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
