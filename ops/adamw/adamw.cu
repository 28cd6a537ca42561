// CUDA units of adamw.h: one block a unit, tensors and units as kernel arguments (no table to copy,
// no synchronisation), the clip coefficient read from device memory. Bytes as in adamw.h; every
// element has one writer and every unit one sum, so the bits repeat.

#include "ops/adamw/adamw_kernel.h"
#include "ops/adamw/moment_codes.h"
#include "ops/core/cuda.cuh"

namespace cosmos::ops {
namespace {

constexpr int kThreads = 512;
constexpr int kTensors = 24, kUnits = 256;  // within the 4 KiB of kernel arguments

template <typename Step, typename TensorEntry>
struct Batch {
  Step step;
  TensorEntry tensors[kTensors];
  uint8_t tensor_of[kUnits];
  int32_t unit_of[kUnits];  ///< number of the unit within its tensor
  int64_t first_unit;       ///< of this batch among all units
};
using AdamWBatch = Batch<AdamWStep, AdamWTensor>;
using SquareBatch = Batch<SquareSums, NormTensor>;
static_assert(sizeof(AdamWBatch) <= 4096 && sizeof(SquareBatch) <= 4096);

/// What is the same for all elements of a tensor.
struct Numbers {
  float step_size, correction, clip, decay, rest1, beta2, rest2, eps, ema_rate;

  __device__ void update(float& w, float g, float& m, float& v) const {
    g *= clip;
    m += (g - m) * rest1;
    v = v * beta2 + g * g * rest2;
    w = w * decay - step_size * m / (sqrtf(v) / correction + eps);
  }

  /// Element i of a tensor, whose moments are m and v.
  template <typename T, typename G>
  __device__ void update(const AdamWTensor& t, int64_t i, float& m, float& v) const {
    T* param = static_cast<T*>(t.param);
    float* master = static_cast<float*>(t.master);
    float* ema = static_cast<float*>(t.ema);
    float w = master ? master[i] : cuda::to_float(param[i]);
    update(w, cuda::to_float(static_cast<const G*>(t.grad)[i]), m, v);
    param[i] = cuda::from_float<T>(w);
    if (master) master[i] = w;
    if (ema) ema[i] += (w - ema[i]) * ema_rate;
  }
};

template <typename T, typename G>
__device__ void update_unit(const AdamWTensor& t, int64_t begin, const Numbers& n) {
  const int64_t end = begin + kUnitElements < t.size ? begin + kUnitElements : t.size;
  T* param = static_cast<T*>(t.param);
  const G* grad = static_cast<const G*>(t.grad);
  float* exp_avg = static_cast<float*>(t.exp_avg);
  float* exp_avg_sq = static_cast<float*>(t.exp_avg_sq);
  float* master = static_cast<float*>(t.master);
  float* ema = static_cast<float*>(t.ema);
  constexpr int kVec = 4;
  // Units start on multiples of 32768 elements: vectors are whole unless the tensor ends.
  const bool wide = reinterpret_cast<uintptr_t>(t.param) % 16 == 0 &&
                    reinterpret_cast<uintptr_t>(t.grad) % 16 == 0;
  int64_t i = begin + threadIdx.x * kVec;
  for (; wide && i + kVec <= end; i += kThreads * kVec) {
    float w[kVec], g[kVec], m[kVec], v[kVec], e[kVec];
    if (master)
      cuda::load(master + i, w);
    else
      cuda::load(param + i, w);
    cuda::load(grad + i, g);
    cuda::load(exp_avg + i, m);
    cuda::load(exp_avg_sq + i, v);
    for (int k = 0; k < kVec; ++k) n.update(w[k], g[k], m[k], v[k]);
    cuda::store(exp_avg + i, m);
    cuda::store(exp_avg_sq + i, v);
    cuda::store(param + i, w);
    if (master) cuda::store(master + i, w);
    if (ema) {
      cuda::load(ema + i, e);
      for (int k = 0; k < kVec; ++k) e[k] += (w[k] - e[k]) * n.ema_rate;
      cuda::store(ema + i, e);
    }
  }
  for (; i < end; i += kThreads * kVec)
    for (int64_t k = i; k < i + kVec && k < end; ++k)
      n.update<T, G>(t, k, exp_avg[k], exp_avg_sq[k]);
}

__device__ inline float warp_max(float x) {
  for (int step = cuda::kWarp / 2; step > 0; step /= 2)
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

/// The same where moments are codes: a warp takes a block of them.
template <typename T, typename G>
__device__ void update_coded_unit(const AdamWTensor& t, int64_t begin, const Numbers& n) {
  constexpr int kEach = kMomentBlock / cuda::kWarp;
  const int64_t end = begin + kUnitElements < t.size ? begin + kUnitElements : t.size;
  const int lane = threadIdx.x % cuda::kWarp, warp = threadIdx.x / cuda::kWarp;
  const uint32_t step = static_cast<uint32_t>(*t.step);
  int8_t* m_codes = static_cast<int8_t*>(t.exp_avg);
  uint8_t* v_codes = static_cast<uint8_t*>(t.exp_avg_sq);
  for (int64_t first = begin + warp * kMomentBlock; first < end;
       first += kThreads / cuda::kWarp * kMomentBlock) {
    const int64_t block = first / kMomentBlock;
    const float m_scale = t.exp_avg_scale[block], v_scale = t.exp_avg_sq_scale[block];
    float m[kEach], v[kEach], m_max = 0, v_max = 0;
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int64_t i = first + lane + k * cuda::kWarp;
      m[k] = v[k] = 0;
      if (i >= end) continue;
      m[k] = decode_first(m_codes[i], m_scale);
      v[k] = decode_second(v_codes[i], v_scale);
      n.update<T, G>(t, i, m[k], v[k]);
      m_max = fmaxf(m_max, fabsf(m[k]));
      v_max = fmaxf(v_max, v[k]);
    }
    m_max = warp_max(m_max);  // all lanes have read the scales before any comes here
    v_max = warp_max(v_max);
    if (lane == 0) {
      t.exp_avg_scale[block] = m_max;
      t.exp_avg_sq_scale[block] = v_max;
    }
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int64_t i = first + lane + k * cuda::kWarp;
      if (i >= end) continue;
      const float chance = moment_chance(static_cast<uint32_t>(i), step);
      m_codes[i] = encode_first(m[k], inverse_scale(m_max), chance);
      v_codes[i] = encode_second(v[k], inverse_scale(v_max), chance);
    }
  }
}

template <typename T>
__device__ void update_unit_of(const AdamWTensor& t, int64_t begin, const Numbers& n) {
  if (t.exp_avg_scale)
    t.wide_grad ? update_coded_unit<T, float>(t, begin, n) : update_coded_unit<T, T>(t, begin, n);
  else
    t.wide_grad ? update_unit<T, float>(t, begin, n) : update_unit<T, T>(t, begin, n);
}

__global__ void __launch_bounds__(kThreads) adamw_kernel(AdamWBatch batch) {
  const AdamWStep& p = batch.step;
  float clip = 1;
  if (p.clip)
    clip = p.clip_is_double ? static_cast<float>(*static_cast<const double*>(p.clip))
                            : *static_cast<const float*>(p.clip);
  if (!isfinite(clip)) return;
  const AdamWTensor& t = batch.tensors[batch.tensor_of[blockIdx.x]];
  // In double, because 1 - beta^t cancels; by one thread, because double is slow.
  __shared__ float step_size, correction;
  if (threadIdx.x == 0) {
    step_size = static_cast<float>(p.lr / (1 - pow(p.beta1, static_cast<double>(*t.step))));
    correction = static_cast<float>(sqrt(1 - pow(p.beta2, static_cast<double>(*t.step))));
  }
  __syncthreads();
  const Numbers n{step_size,
                  correction,
                  clip,
                  static_cast<float>(p.decay),
                  static_cast<float>(1 - p.beta1),
                  static_cast<float>(p.beta2),
                  static_cast<float>(1 - p.beta2),
                  static_cast<float>(p.eps),
                  static_cast<float>(1 - p.ema_decay)};
  const int64_t begin = batch.unit_of[blockIdx.x] * kUnitElements;
  if (t.dtype == DType::kFloat32) update_unit_of<float>(t, begin, n);
  if (t.dtype == DType::kBFloat16) update_unit_of<__nv_bfloat16>(t, begin, n);
  if (t.dtype == DType::kFloat16) update_unit_of<__half>(t, begin, n);
}

template <typename T>
__device__ float unit_squares(const NormTensor& t, int64_t begin) {
  const int64_t end = begin + kUnitElements < t.size ? begin + kUnitElements : t.size;
  const T* x = static_cast<const T*>(t.data);
  constexpr int kVec = 16 / sizeof(T);
  const bool wide = reinterpret_cast<uintptr_t>(x) % 16 == 0;
  float sum = 0;
  int64_t i = begin + threadIdx.x * kVec;
  for (; wide && i + kVec <= end; i += kThreads * kVec) {
    float v[kVec];
    cuda::load(x + i, v);
    for (int k = 0; k < kVec; ++k) sum += v[k] * v[k];
  }
  for (; i < end; i += kThreads * kVec)
    for (int64_t k = i; k < i + kVec && k < end; ++k) {
      const float v = cuda::to_float(x[k]);
      sum += v * v;
    }
  return sum;
}

__global__ void __launch_bounds__(kThreads) square_sums_kernel(SquareBatch batch) {
  __shared__ float scratch[cuda::kWarp];
  const NormTensor& t = batch.tensors[batch.tensor_of[blockIdx.x]];
  const int64_t begin = batch.unit_of[blockIdx.x] * kUnitElements;
  float sum = 0;
  if (t.dtype == DType::kFloat32) sum = unit_squares<float>(t, begin);
  if (t.dtype == DType::kBFloat16) sum = unit_squares<__nv_bfloat16>(t, begin);
  if (t.dtype == DType::kFloat16) sum = unit_squares<__half>(t, begin);
  sum = cuda::block_sum(sum, scratch);
  if (threadIdx.x == 0) batch.step.partial[batch.first_unit + blockIdx.x] = sum;
}

/// Cuts the units into batches that fit the kernel's arguments and launches each.
template <typename BatchType, typename Step>
void launch_batches(void (*kernel)(BatchType), const Step& step, void* stream) {
  int64_t unit = 0;
  while (unit < step.unit_count) {
    BatchType batch{};
    batch.step = step;
    batch.first_unit = unit;
    int units = 0, tensors = 0;
    int32_t last = -1;
    for (; unit < step.unit_count && units < kUnits; ++unit, ++units) {
      const Unit& u = step.units[unit];
      if (u.tensor != last) {
        if (tensors == kTensors) break;
        batch.tensors[tensors++] = step.tensors[u.tensor];
        last = u.tensor;
      }
      batch.tensor_of[units] = static_cast<uint8_t>(tensors - 1);
      batch.unit_of[units] = static_cast<int32_t>(u.begin / kUnitElements);
    }
    cuda::launch(kernel, dim3(units), kThreads, batch, stream);
  }
}

}  // namespace

void adamw_step_cuda(const AdamWStep& p, void* stream) {
  launch_batches(adamw_kernel, p, stream);
}

void square_sums_cuda(const SquareSums& p, void* stream) {
  launch_batches(square_sums_kernel, p, stream);
}

}  // namespace cosmos::ops
