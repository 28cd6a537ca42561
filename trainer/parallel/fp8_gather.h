#pragma once

// Weights of 8-bit products that ranks hand each other in 8 bits: half of bfloat16's bytes. Every
// rank quantises its rows with the scales of the whole weight, which follow from all ranks'
// largest numbers; what is gathered are the same bits that one process makes of the whole weight,
// and the weight itself is never whole.

#include <memory>
#include <string>
#include <vector>

#include "modules/fp8/fp8.h"
#include "trainer/parallel/mesh.h"

namespace cosmos::trainer {

class Fp8Gather {
 public:
  /// Whether a Linear's weight, of one rank's `sizes`, travels in 8 bits: copies move 4 bytes at a
  /// time, and some adapters want the weight itself.
  static bool takes(const modules::LinearImpl& linear, at::IntArrayRef sizes);
  /// How many scales it has.
  static int64_t scales(at::IntArrayRef sizes, ops::Fp8Granularity granularity);

  /// Weights by their layers in `layers`, with rows on the ranks of `group`. The layers' products
  /// read what is gathered from now on.
  Fp8Gather(modules::Fp8Layers& layers, std::vector<int64_t> numbers, const Tensors& weights,
            const Group& group);

  /// Takes the scales of the weights as they are now, from this rank's `rows` of each (bfloat16
  /// rounded or not); begins to ask the other ranks, with an all-reduce of as many bytes as it
  /// returns.  `learning`: amaxes go into histories.
  int64_t begin_scales(const Tensors& rows, bool learning);
  void end_scales();

  /// The rows in 8 bits, four to a float32.
  Tensors quantised(const Tensors& rows) const;
  /// Takes memory for the whole weights, to be written as float32, too; frees it.
  Tensors allocate();
  void free();

 private:
  struct Weight {
    int64_t layer = 0;
    at::ScalarType dtype;   ///< of the model: what rows are rounded to first
    int64_t first_row = 0;  ///< of this rank
    ops::Fp8Weight whole;   ///< values have no bytes while the weight is not whole
    Tensor amax;            ///< of the whole weight, a part of amax_
  };
  Tensor amax_of(const Weight& weight, const Tensor& rows) const;
  Tensor quantise(const Weight& weight, const Tensor& rows) const;

  modules::Fp8Layers* layers_;
  const Group* group_;
  ops::Fp8Options options_;
  std::vector<Weight> weights_;
  Tensor amax_;
  Pending pending_;
};

}  // namespace cosmos::trainer
