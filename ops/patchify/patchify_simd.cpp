// CPU rows of patchify.h. A row of tokens fits the first cache levels, so that one side may be
// visited with strides: line by line, the video is walked in order.

#include "ops/core/simd.h"
#include "ops/patchify/patchify_kernel.h"

namespace cosmos::ops::COSMOS_ISA {
namespace {

/// Offsets of a video line (its first element) and of its first element among the row's tokens.
struct Line {
  int64_t video, token;
};

Line line_of(const Patches& p, int64_t row, int64_t line) {
  const int64_t j = row % p.h, i = row / p.h % p.t, b = row / p.h / p.t;
  const int64_t dh = line % p.ph, dt = line / p.ph % p.pt, c = line / p.ph / p.pt;
  return {
      b * p.video[0] + c * p.video[1] + (i * p.pt + dt) * p.video[2] + (j * p.ph + dh) * p.video[3],
      row * p.w * p.features + c * p.token[0] + dt * p.token[1] + dh * p.token[2]};
}

/// Calls copy(video offset, its stride, token offset) for each of the w elements' runs: one run is
/// the elements at the same place of all patches.
template <typename Copy>
void each_run(const Patches& p, int64_t begin, int64_t end, Copy copy) {
  for (int64_t row = begin; row < end; ++row)
    for (int64_t l = 0; l < p.lines(); ++l) {
      const Line line = line_of(p, row, l);
      for (int64_t d = 0; d < p.pw; ++d)
        copy(line.video + d * p.video[4], p.pw * p.video[4], line.token + d * p.token[3]);
    }
}

}  // namespace

void patchify(const Patchify& p, int64_t begin, int64_t end) {
  visit_bytes(p.patches.bytes, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const int64_t w = p.patches.w, features = p.patches.features;
    each_run(p.patches, begin, end, [&](int64_t video, int64_t step, int64_t token) {
      const T* from = static_cast<const T*>(p.video) + video;
      T* to = static_cast<T*>(p.tokens) + token;
      for (int64_t k = 0; k < w; ++k) to[k * features] = from[k * step];
    });
  });
}

void unpatchify(const Unpatchify& p, int64_t begin, int64_t end) {
  visit_bytes(p.patches.bytes, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const int64_t w = p.patches.w, features = p.patches.features;
    each_run(p.patches, begin, end, [&](int64_t video, int64_t step, int64_t token) {
      const T* from = static_cast<const T*>(p.tokens) + token;
      T* to = static_cast<T*>(p.video) + video;
      for (int64_t k = 0; k < w; ++k) to[k * step] = from[k * features];
    });
  });
}

}  // namespace cosmos::ops::COSMOS_ISA
