#pragma once

// Counter-based random numbers (Philox 4x32-10, Salmon et al., SC 2011).
//
// A draw is a pure function of (seed, purpose, index): the noise of global sample 1234 is the same
// whichever rank, worker or resumed process asks for it.

#include <cstdint>

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// What a number is drawn for; separate streams never overlap.
enum class Purpose : uint32_t {
  kOrder = 1,      ///< order of samples in an epoch
  kWindow = 2,     ///< window, crop and flip of a sample
  kTimestep = 3,   ///< noise level of a sample
  kNoise = 4,      ///< noise added to a sample
  kCondition = 5,  ///< number of conditioning frames, text dropout
  kSampler = 6,    ///< initial noise of a generated clip
  kInit = 7,       ///< weight initialisation
  kDropout = 8,    ///< LoRA dropout, keyed by (step, layer)
  kToken = 9,      ///< tokens of a generated answer
};

/// A stream of numbers for one (seed, purpose, index).
class Philox {
 public:
  Philox(uint64_t seed, Purpose purpose, uint64_t index = 0);

  uint32_t next_u32();
  uint64_t next_u64();
  /// Uniform in [0, 1), 53 bits.
  double uniform();
  /// Uniform integer in [0, n), n > 0, without modulo bias.
  uint64_t below(uint64_t n);
  /// Standard normal (Box-Muller).
  double normal();
  /// Standard normal tensor, float32 on the CPU.
  Tensor normal(at::IntArrayRef shape);
  /// Uniform [0, 1) tensor, float32 on the CPU.
  Tensor uniform(at::IntArrayRef shape);

 private:
  void refill();

  uint64_t key_;
  uint32_t counter_[4];
  uint32_t block_[4];
  int used_ = 4;
  bool has_spare_ = false;
  double spare_ = 0;
};

}  // namespace cosmos::modules
