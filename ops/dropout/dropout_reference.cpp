#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>

#include "ops/core/philox.h"
#include "ops/dropout/dropout.h"
#include "ops/dropout/dropout_driver.h"

namespace cosmos::ops::reference {
namespace {

/// The 16 bits of element i, word for word as dropout.h has it.
uint32_t bits_of(int64_t seed, int64_t i) {
  const uint64_t unit = static_cast<uint64_t>(i) / 512, j = static_cast<uint64_t>(i) % 512;
  const uint64_t counter = 64 * unit + j % 256 / 4;
  const PhiloxBlock block = philox(static_cast<uint64_t>(seed), static_cast<uint32_t>(counter),
                                   static_cast<uint32_t>(counter >> 32), 0, 0);
  return j < 256 ? block.word[j % 4] & 0xffffu : block.word[j % 4] >> 16;
}

}  // namespace

at::Tensor seeded_dropout(const at::Tensor& x, double p, at::IntArrayRef seeds,
                          at::IntArrayRef slice) {
  const DropoutRate rate(p);
  const at::Tensor mask = at::empty(x.sizes(), at::kBool);
  bool* keep = mask.mutable_data_ptr<bool>();
  const int64_t count = x.numel() / static_cast<int64_t>(seeds.size());
  for (const int64_t seed : seeds)
    for (int64_t i = 0; i < count; ++i) {
      int64_t place = i;
      if (!slice.empty()) {
        const int64_t rows = slice[0], first_row = slice[1], whole_rows = slice[2];
        const int64_t row = i / x.size(-1), feature = slice[3] + i % x.size(-1);
        place = (row / rows * whole_rows + first_row + row % rows) * slice[4] + feature;
      }
      *keep++ = bits_of(seed, place) >= rate.threshold;
    }
  return at::where(mask.to(x.device()), x * rate.scale, 0);
}

}  // namespace cosmos::ops::reference
