// CPU tiles of channel_norm.h. Channels-last: one row after the other. Planes: a tile of positions
// is walked channel by channel, so that loads run along memory; the second walk finds the tile in
// L2.

#include <algorithm>
#include <type_traits>

#include "ops/channel_norm/channel_norm_kernel.h"
#include "ops/core/simd.h"
#include "ops/core/simd_math.h"

namespace cosmos::ops::COSMOS_ISA {
namespace {

template <typename A>
A sigmoid(A y) {
  return A(1) / (A(1) + simd::exp(-y));
}

template <bool kSilu, typename A>
A activated(A y) {
  if constexpr (!kSilu) return y;
  return y * sigmoid(y);
}

/// Gradient of y, where out = silu(y) or y.
template <bool kSilu, typename A>
A output_gradient(A grad, A y) {
  if constexpr (!kSilu) return grad;
  const A s = sigmoid(y);
  return grad * s * (A(1) + y * (A(1) - s));
}

/// Tile u: its sample, its positions [begin, end).
struct Tile {
  int64_t sample, begin, end;
};
Tile tile_of(const ChannelTiles& shape, int64_t u) {
  const int64_t begin = u % shape.tiles * shape.tile;
  return {u / shape.tiles, begin, std::min(begin + shape.tile, shape.positions)};
}

/// |x| of a row. Sixteen sums side by side: tokenizers have 96 channels, of which a quarter (as
/// sum_of divides them) is no whole number of vectors.
template <typename T>
Acc<T> row_length(const T* x, int64_t channels) {
  using A = Acc<T>;
  constexpr int64_t kLanes = 16;
  A sums[kLanes] = {};
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes)
#pragma omp simd
    for (int64_t j = 0; j < kLanes; ++j) {
      const A value = load(x[c + j]);
      sums[j] += value * value;
    }
  for (int64_t j = 0; c + j < channels; ++j) sums[j] += A(load(x[c + j])) * A(load(x[c + j]));
  for (int64_t width = kLanes / 2; width > 0; width /= 2)
    for (int64_t j = 0; j < width; ++j) sums[j] += sums[j + width];
  return std::sqrt(sums[0]);
}

template <typename A>
A at_least(A length, A eps) {
  return length < eps ? eps : length;  // NaN stays
}

/// What grad_x loses along x. Below eps the norm is a constant.
template <typename A>
A pull_along(A scale, A dot, A length, A eps) {
  return length < eps ? A(0) : scale * (dot / length) / length;
}

template <typename T, bool kSilu>
void forward_rows(const ChannelNormForward& p, const Tile& tile) {
  using A = Acc<T>;
  const int64_t channels = p.shape.channels;
  const A* gamma = static_cast<const A*>(p.gamma);
  const A root = std::sqrt(A(channels)), eps = A(p.eps);
  for (int64_t r = tile.begin; r < tile.end; ++r) {
    const T* x = static_cast<const T*>(p.x) + r * channels;
    T* out = static_cast<T*>(p.out) + r * channels;
    const A scale = root / at_least(row_length(x, channels), eps);
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c)
      store(out[c], activated<kSilu>(load(x[c]) * scale * gamma[c]));
  }
}

/// grad_x = scale h - x scale <h, x> / |x|², h = gamma * (gradient of y).
template <typename T, bool kSilu>
void backward_rows(const ChannelNormBackward& p, const Tile& tile, Acc<T>* gamma_sum) {
  using A = Acc<T>;
  const int64_t channels = p.shape.channels;
  const A* gamma = static_cast<const A*>(p.gamma);
  const A root = std::sqrt(A(channels)), eps = A(p.eps);
  for (int64_t r = tile.begin; r < tile.end; ++r) {
    const T* x = static_cast<const T*>(p.x) + r * channels;
    const T* grad = static_cast<const T*>(p.grad) + r * channels;
    T* grad_x = static_cast<T*>(p.grad_x) + r * channels;
    const A length = row_length(x, channels), scale = root / at_least(length, eps);
    const auto y_gradient = [=](int64_t c) {
      return output_gradient<kSilu>(A(load(grad[c])), load(x[c]) * scale * gamma[c]);
    };
    A dot = 0;
    if (gamma_sum) {
#pragma omp simd reduction(+ : dot)
      for (int64_t c = 0; c < channels; ++c) {
        const A along = y_gradient(c) * load(x[c]);
        dot += along * gamma[c];
        gamma_sum[c] += along * scale;
      }
    } else {
#pragma omp simd reduction(+ : dot)
      for (int64_t c = 0; c < channels; ++c) dot += y_gradient(c) * load(x[c]) * gamma[c];
    }
    const A pull = pull_along(scale, dot, length, eps);
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c)
      store(grad_x[c], scale * y_gradient(c) * gamma[c] - load(x[c]) * pull);
  }
}

/// |x| of the tile's positions; `x` is the tile in plane 0.
template <typename T>
void plane_lengths(const T* x, const ChannelTiles& shape, int64_t count, Acc<T>* length) {
  using A = Acc<T>;
  std::fill_n(length, count, A(0));
  for (int64_t c = 0; c < shape.channels; ++c) {
    const T* plane = x + c * shape.positions;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const A value = load(plane[i]);
      length[i] += value * value;
    }
  }
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) length[i] = std::sqrt(length[i]);
}

template <typename T, bool kSilu>
void forward_planes(const ChannelNormForward& p, const Tile& tile) {
  using A = Acc<T>;
  const int64_t positions = p.shape.positions, count = tile.end - tile.begin;
  const int64_t first = tile.sample * p.shape.channels * positions + tile.begin;
  const A root = std::sqrt(A(p.shape.channels)), eps = A(p.eps);
  A scale[kMaxChannelTile];
  plane_lengths(static_cast<const T*>(p.x) + first, p.shape, count, scale);
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) scale[i] = root / at_least(scale[i], eps);
  for (int64_t c = 0; c < p.shape.channels; ++c) {
    const T* x = static_cast<const T*>(p.x) + first + c * positions;
    T* out = static_cast<T*>(p.out) + first + c * positions;
    const A gamma = static_cast<const A*>(p.gamma)[c];
#pragma omp simd
    for (int64_t i = 0; i < count; ++i)
      store(out[i], activated<kSilu>(load(x[i]) * scale[i] * gamma));
  }
}

template <typename T, bool kSilu>
void backward_planes(const ChannelNormBackward& p, const Tile& tile, Acc<T>* gamma_sum) {
  using A = Acc<T>;
  const int64_t positions = p.shape.positions, count = tile.end - tile.begin;
  const int64_t first = tile.sample * p.shape.channels * positions + tile.begin;
  const A root = std::sqrt(A(p.shape.channels)), eps = A(p.eps);
  A length[kMaxChannelTile], scale[kMaxChannelTile], pull[kMaxChannelTile];
  plane_lengths(static_cast<const T*>(p.x) + first, p.shape, count, length);
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) scale[i] = root / at_least(length[i], eps);
  std::fill_n(pull, count, A(0));
  for (int64_t c = 0; c < p.shape.channels; ++c) {
    const T* x = static_cast<const T*>(p.x) + first + c * positions;
    const T* grad = static_cast<const T*>(p.grad) + first + c * positions;
    const A gamma = static_cast<const A*>(p.gamma)[c];
    A sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) {
      const A value = load(x[i]);
      const A along = output_gradient<kSilu>(A(load(grad[i])), value * scale[i] * gamma) * value;
      pull[i] += along * gamma;
      sum += along * scale[i];
    }
    if (gamma_sum) gamma_sum[c] = sum;
  }
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) pull[i] = pull_along(scale[i], pull[i], length[i], eps);
  for (int64_t c = 0; c < p.shape.channels; ++c) {
    const T* x = static_cast<const T*>(p.x) + first + c * positions;
    const T* grad = static_cast<const T*>(p.grad) + first + c * positions;
    T* grad_x = static_cast<T*>(p.grad_x) + first + c * positions;
    const A gamma = static_cast<const A*>(p.gamma)[c];
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const A value = load(x[i]);
      const A h = output_gradient<kSilu>(A(load(grad[i])), value * scale[i] * gamma) * gamma;
      store(grad_x[i], scale[i] * h - value * pull[i]);
    }
  }
}

/// Calls fn(null pointer of the element type, true or false type: with SiLU).
template <typename Fn>
void visit(DType dtype, bool activation, Fn fn) {
  visit_dtype(dtype, [&](auto* t) {
    if (activation)
      fn(t, std::true_type{});
    else
      fn(t, std::false_type{});
  });
}

}  // namespace

void channel_norm_forward(const ChannelNormForward& p, int64_t begin, int64_t end) {
  visit(p.shape.dtype, p.activation, [&](auto* t, auto silu) {
    using T = std::remove_pointer_t<decltype(t)>;
    constexpr bool kSilu = decltype(silu)::value;
    for (int64_t u = begin; u < end; ++u) {
      const Tile tile = tile_of(p.shape, u);
      p.shape.rows ? forward_rows<T, kSilu>(p, tile) : forward_planes<T, kSilu>(p, tile);
    }
  });
}

void channel_norm_backward(const ChannelNormBackward& p, int64_t begin, int64_t end) {
  visit(p.shape.dtype, p.activation, [&](auto* t, auto silu) {
    using T = std::remove_pointer_t<decltype(t)>;
    constexpr bool kSilu = decltype(silu)::value;
    for (int64_t u = begin; u < end; ++u) {
      const Tile tile = tile_of(p.shape, u);
      Acc<T>* gamma_sum = static_cast<Acc<T>*>(p.gamma_partial);
      if (gamma_sum) {
        gamma_sum += u * p.shape.channels;
        std::fill_n(gamma_sum, p.shape.channels, Acc<T>(0));
      }
      p.shape.rows ? backward_rows<T, kSilu>(p, tile, gamma_sum)
                   : backward_planes<T, kSilu>(p, tile, gamma_sum);
    }
  });
}

}  // namespace cosmos::ops::COSMOS_ISA
