// CPU rows of haar.h: units [begin, end) are rows of blocks, (b, t, h) of the patches. Blocks that
// lie side by side along w are transformed together, one in each lane.

#include <algorithm>
#include <type_traits>

#include "ops/core/simd.h"
#include "ops/haar/haar_kernel.h"

namespace cosmos::ops::COSMOS_ISA {
namespace {

constexpr int64_t kLanes = 16;

/// One channel of up to kLanes blocks, sample (or band) by sample.
template <typename A, int64_t kP>
struct Blocks {
  A at[kP * kP * kP][kLanes];
};

/// One level of a cube of 2 x 2 x 2: sums and differences along w, h and t, whose neighbours are
/// that many places apart.
template <typename A>
void transform_cube(A (*v)[kLanes], int64_t w, int64_t h, int64_t t) {
#pragma omp simd
  for (int64_t j = 0; j < kLanes; ++j) {
    const A a0 = v[0][j] + v[w][j], a1 = v[0][j] - v[w][j];
    const A b0 = v[h][j] + v[h + w][j], b1 = v[h][j] - v[h + w][j];
    const A c0 = v[t][j] + v[t + w][j], c1 = v[t][j] - v[t + w][j];
    const A d0 = v[t + h][j] + v[t + h + w][j], d1 = v[t + h][j] - v[t + h + w][j];
    const A p0 = a0 + b0, p1 = a1 + b1, q0 = a0 - b0, q1 = a1 - b1;
    const A r0 = c0 + d0, r1 = c1 + d1, s0 = c0 - d0, s1 = c1 - d1;
    v[0][j] = p0 + r0;
    v[w][j] = p1 + r1;
    v[h][j] = q0 + s0;
    v[h + w][j] = q1 + s1;
    v[t][j] = p0 - r0;
    v[t + w][j] = p1 - r1;
    v[t + h][j] = q0 - s0;
    v[t + h + w][j] = q1 - s1;
  }
}

/// All levels in place. Afterwards the band (or sample) of digits (t, h, w) stands where the sample
/// (or band) with those coordinates stood.
template <int64_t kP, typename A>
void transform(Blocks<A, kP>& x) {
  for (int64_t step = 1; step < kP; step *= 2)
    for (int64_t t = 0; t < kP; ++t)
      for (int64_t h = 0; h < kP; ++h)
        for (int64_t w = 0; w < kP; ++w)
          if (!((t | h | w) & step))
            transform_cube(x.at + (t * kP + h) * kP + w, step, step * kP, step * kP * kP);
}

/// Unit u of the patches, and where its rows of samples are in the video.
template <int64_t kP>
struct Row {
  Row(const HaarTransform& p, int64_t u)
      : p(p),
        b(u / (p.blocks_h * p.blocks_t)),
        t(u / p.blocks_h % p.blocks_t),
        h(u % p.blocks_h),
        lead(p.front == HaarFront::kNone ? 0 : kP - 1) {}

  /// The frame that sample dt of the block lies in; negative before the clip.
  int64_t frame(int64_t dt) const { return t * kP + dt - lead; }

  int64_t samples(int64_t c, int64_t frame, int64_t dh) const {
    const int64_t height = p.blocks_h * kP, width = p.blocks_w * kP;
    return (((b * p.channels + c) * p.frames + frame) * height + h * kP + dh) * width;
  }

  const HaarTransform& p;
  int64_t b, t, h, lead;
};

template <typename T, int64_t kP>
void load_samples(const Row<kP>& row, int64_t c, int64_t first, int64_t count,
                  Blocks<Acc<T>, kP>& x) {
  using A = Acc<T>;
  for (int64_t dt = 0; dt < kP; ++dt)
    for (int64_t dh = 0; dh < kP; ++dh) {
      A(*v)[kLanes] = x.at + (dt * kP + dh) * kP;
      int64_t frame = row.frame(dt);
      if (frame < 0 && row.p.front == HaarFront::kStartTransposed) {
        for (int64_t dw = 0; dw < kP; ++dw) std::fill_n(v[dw], kLanes, A(0));
        continue;
      }
      frame = std::max<int64_t>(frame, 0);
      const T* from = static_cast<const T*>(row.p.from) + row.samples(c, frame, dh) + first * kP;
      for (int64_t j = 0; j < count; ++j)
        for (int64_t dw = 0; dw < kP; ++dw) v[dw][j] = load(from[j * kP + dw]);
    }
}

template <typename T, int64_t kP>
void store_samples(const Row<kP>& row, int64_t c, int64_t first, int64_t count,
                   Blocks<Acc<T>, kP>& x) {
  using A = Acc<T>;
  const A scale = A(row.p.scale);
  for (int64_t dt = 0; dt < kP; ++dt) {
    if (row.frame(dt) < 0) {
      // The last frame of the first block is frame 0.
      if (row.p.front == HaarFront::kStartTransposed)
        for (int64_t i = 0; i < kP * kP; ++i)
          for (int64_t j = 0; j < kLanes; ++j)
            x.at[(kP - 1) * kP * kP + i][j] += x.at[dt * kP * kP + i][j];
      continue;
    }
    for (int64_t dh = 0; dh < kP; ++dh) {
      const A(*v)[kLanes] = x.at + (dt * kP + dh) * kP;
      T* to = static_cast<T*>(row.p.to) + row.samples(c, row.frame(dt), dh) + first * kP;
      for (int64_t j = 0; j < count; ++j)
        for (int64_t dw = 0; dw < kP; ++dw) store(to[j * kP + dw], v[dw][j] * scale);
    }
  }
}

/// Bands between [band][lane] and the patches' [block][band, c].
template <typename T, int64_t kP>
struct Bands {
  static constexpr int64_t kCount = kP * kP * kP;

  void write(const Blocks<Acc<T>, kP>& x, Acc<T> scale, int64_t count, int64_t channels, T* to) {
    each([&](int64_t band, int64_t place) {
#pragma omp simd
      for (int64_t j = 0; j < kLanes; ++j) store(at[band][j], x.at[place][j] * scale);
    });
    for (int64_t j = 0; j < count; ++j)
      for (int64_t band = 0; band < kCount; ++band)
        to[(j * kCount + band) * channels] = at[band][j];
  }

  void read(const T* from, int64_t count, int64_t channels, Blocks<Acc<T>, kP>& x) {
    for (int64_t j = 0; j < count; ++j)
      for (int64_t band = 0; band < kCount; ++band)
        at[band][j] = from[(j * kCount + band) * channels];
    each([&](int64_t band, int64_t place) {
#pragma omp simd
      for (int64_t j = 0; j < kLanes; ++j) x.at[place][j] = load(at[band][j]);
    });
  }

  template <typename Fn>
  static void each(Fn fn) {
    for (int64_t t = 0; t < kP; ++t)
      for (int64_t h = 0; h < kP; ++h)
        for (int64_t w = 0; w < kP; ++w) fn(band_at(t, h, w), (t * kP + h) * kP + w);
  }

  T at[kCount][kLanes] = {};
};

/// Calls fn(row, channel, first block, number of blocks, index of the first block's first band).
template <int64_t kP, typename Fn>
void for_blocks(const HaarTransform& p, int64_t begin, int64_t end, Fn fn) {
  for (int64_t u = begin; u < end; ++u)
    for (int64_t first = 0; first < p.blocks_w; first += kLanes)
      for (int64_t c = 0; c < p.channels; ++c)
        fn(Row<kP>(p, u), c, first, std::min(kLanes, p.blocks_w - first),
           (u * p.blocks_w + first) * kP * kP * kP * p.channels + c);
}

template <typename Fn>
void visit(const HaarTransform& p, Fn fn) {
  visit_dtype(p.dtype, [&](auto* t) {
    if (p.patch == 2) return fn(t, std::integral_constant<int64_t, 2>{});
    fn(t, std::integral_constant<int64_t, 4>{});
  });
}

}  // namespace

void haar_patch_rows(const HaarTransform& p, int64_t begin, int64_t end) {
  visit(p, [&](auto* t, auto patch) {
    using T = std::remove_pointer_t<decltype(t)>;
    constexpr int64_t kP = decltype(patch)::value;
    Blocks<Acc<T>, kP> x{};
    Bands<T, kP> bands;
    for_blocks<kP>(p, begin, end,
                   [&](const Row<kP>& row, int64_t c, int64_t first, int64_t count, int64_t at) {
                     load_samples<T>(row, c, first, count, x);
                     transform(x);
                     bands.write(x, Acc<T>(p.scale), count, p.channels, static_cast<T*>(p.to) + at);
                   });
  });
}

void haar_unpatch_rows(const HaarTransform& p, int64_t begin, int64_t end) {
  visit(p, [&](auto* t, auto patch) {
    using T = std::remove_pointer_t<decltype(t)>;
    constexpr int64_t kP = decltype(patch)::value;
    Blocks<Acc<T>, kP> x{};
    Bands<T, kP> bands;
    for_blocks<kP>(p, begin, end,
                   [&](const Row<kP>& row, int64_t c, int64_t first, int64_t count, int64_t at) {
                     bands.read(static_cast<const T*>(p.from) + at, count, p.channels, x);
                     transform(x);
                     store_samples<T>(row, c, first, count, x);
                   });
  });
}

}  // namespace cosmos::ops::COSMOS_ISA
