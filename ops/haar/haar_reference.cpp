#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros_like.h>

#include "ops/core/check.h"
#include "ops/haar/haar.h"

namespace cosmos::ops::reference {
namespace {

/// [p³, p³] of +1 and -1. Row: band; column: position (t, h, w) in the block.
at::Tensor haar_signs(int64_t p, const at::Tensor& like) {
  const int64_t n = p * p * p;
  at::Tensor signs = at::empty({n, n}, at::kDouble);
  double* s = signs.mutable_data_ptr<double>();
  for (int64_t band = 0; band < n; ++band)
    for (int64_t at = 0; at < n; ++at) {
      const int64_t t = at / (p * p), h = at / p % p, w = at % p;
      int64_t flips = 0;
      for (int64_t level = 0; (1 << level) < p; ++level) {
        const int64_t digit = band >> (3 * level) & 7;
        flips += (digit >> 2 & t >> level & 1) + (digit >> 1 & h >> level & 1) +
                 (digit & w >> level & 1);
      }
      s[band * n + at] = flips % 2 ? -1 : 1;
    }
  return signs.to(like.device(), accumulate_dtype(like));
}

}  // namespace

at::Tensor haar_patch(const at::Tensor& video, int64_t p, int64_t front, double scale) {
  at::Tensor x = video.to(accumulate_dtype(video));
  if (front != 0) {
    const at::Tensor before = x.narrow(2, 0, 1).expand({-1, -1, p - 1, -1, -1});
    x = at::cat({front == 1 ? before : at::zeros_like(before), x}, 2);
  }
  const int64_t B = x.size(0), C = x.size(1), n = p * p * p;
  const int64_t t = x.size(2) / p, h = x.size(3) / p, w = x.size(4) / p;
  x = x.reshape({B, C, t, p, h, p, w, p}).permute({0, 2, 4, 6, 3, 5, 7, 1});
  x = x.reshape({B, t, h, w, n, C});
  x = at::matmul(haar_signs(p, video), x) * (scale / static_cast<double>(n));
  return x.reshape({B, t, h, w, n * C}).to(video.scalar_type());
}

at::Tensor haar_unpatch(const at::Tensor& patches, int64_t p, int64_t front, double scale) {
  const int64_t B = patches.size(0), t = patches.size(1), h = patches.size(2);
  const int64_t w = patches.size(3), n = p * p * p, C = patches.size(4) / n;
  at::Tensor x = patches.to(accumulate_dtype(patches)).reshape({B, t, h, w, n, C});
  x = at::matmul(haar_signs(p, patches).t(), x).reshape({B, t, h, w, p, p, p, C});
  x = x.permute({0, 7, 1, 4, 2, 5, 3, 6}).reshape({B, C, t * p, h * p, w * p});
  if (front == 1) x = x.narrow(2, p - 1, x.size(2) - p + 1);
  if (front == 2)
    x = at::cat({x.narrow(2, 0, p).sum(2, /*keepdim=*/true), x.narrow(2, p, x.size(2) - p)}, 2);
  return (x * scale).to(patches.scalar_type());
}

}  // namespace cosmos::ops::reference
