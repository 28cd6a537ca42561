#include "modules/core/random.h"

#include <algorithm>
#include <cmath>

#include "ops/core/philox.h"

namespace cosmos::modules {
namespace {

constexpr double kTwoPi = 6.283185307179586476925286766559;

}  // namespace

// key = seed; counter = (block number, purpose, index low, index high)
Philox::Philox(uint64_t seed, Purpose purpose, uint64_t index)
    : key_(seed),
      counter_{0, static_cast<uint32_t>(purpose), static_cast<uint32_t>(index),
               static_cast<uint32_t>(index >> 32)},
      block_{} {}

void Philox::refill() {
  const auto block = ops::philox(key_, counter_[0], counter_[1], counter_[2], counter_[3]);
  std::copy_n(block.word, 4, block_);
  ++counter_[0];
  used_ = 0;
}

uint32_t Philox::next_u32() {
  if (used_ == 4) refill();
  return block_[used_++];
}

uint64_t Philox::next_u64() {
  const uint64_t high = next_u32();
  return (high << 32) | next_u32();
}

double Philox::uniform() {
  return static_cast<double>(next_u64() >> 11) * 0x1.0p-53;
}

uint64_t Philox::below(uint64_t n) {
  const uint64_t limit = UINT64_MAX - UINT64_MAX % n;  // reject the tail that would bias the result
  uint64_t draw = next_u64();
  while (draw >= limit) draw = next_u64();
  return draw % n;
}

double Philox::normal() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_;
  }
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
  const double angle = kTwoPi * uniform();
  spare_ = radius * std::sin(angle);
  has_spare_ = true;
  return radius * std::cos(angle);
}

Tensor Philox::normal(at::IntArrayRef shape) {
  Tensor out = torch::empty(shape, torch::kFloat32);
  float* data = out.data_ptr<float>();
  for (int64_t i = 0; i < out.numel(); ++i) data[i] = static_cast<float>(normal());
  return out;
}

Tensor Philox::uniform(at::IntArrayRef shape) {
  Tensor out = torch::empty(shape, torch::kFloat32);
  float* data = out.data_ptr<float>();
  // 24 bits, so that rounding to float never gives 1.
  for (int64_t i = 0; i < out.numel(); ++i)
    data[i] = static_cast<float>(next_u32() >> 8) * 0x1.0p-24f;
  return out;
}

}  // namespace cosmos::modules
