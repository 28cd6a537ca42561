#pragma once

// Products in 8-bit floating point, applied to a model from outside; the model's own code does not
// know.
//
//   const auto fp8 = apply_fp8(*model, {.scaling = "delayed"});
//   ... forward, backward, update ...
//   fp8->advance();                                 // once a step
//
// Weights, gradients and what is between products keep their dtype: operands are quantised as a
// product is made (ops/fp8/fp8_linear.h has the formulas), weights on every call. Linears whose
// numbers of inputs or outputs 16 does not divide are left out, since tensor cores do not take
// them. An adapter's own products stay as they are; the base's are in 8 bits.

#include <functional>
#include <memory>

#include "modules/core/model.h"
#include "modules/fp8/config.h"
#include "ops/fp8/fp8_linear.h"

namespace cosmos::modules {

class Fp8Layers {
 public:
  /// Use apply_fp8().
  Fp8Layers(std::vector<NamedLinear> linears, const Fp8Config& config);

  const std::vector<NamedLinear>& linears() const { return linears_; }

  /// Delayed scaling: the scales of the next step, from this one's amaxes; otherwise nothing.
  /// `max_over_ranks` raises a tensor to its largest values on any rank, so that all have the same
  /// scales.
  void advance(const std::function<void(const Tensor&)>& max_over_ranks = {});

  /// For ranks that gather weights in 8 bits: how one is quantised ...
  ops::Fp8Options weight_options() const;
  /// ... with which scale (undefined: the one that follows from its own numbers) ...
  Tensor weight_scale(int64_t layer) const;
  /// ... what its amax does to the history ...
  void record_weight(int64_t layer, const Tensor& amax);
  /// ... and where the layer's product finds it from now on.
  void set_gathered(int64_t layer, ops::Fp8Weight weight);

  /// Delayed scaling: "scale" [layers, 3] and "amax_history" [layers, 3, history], which a run that
  /// goes on needs. Empty otherwise.
  TensorMap state() const;
  /// After state()'s tensors were filled from a file.
  void state_was_loaded();

 private:
  struct Shared;
  class Product;

  std::vector<NamedLinear> linears_;
  std::shared_ptr<Shared> shared_;
};

/// Which Linears of `model` the config targets. Throws Error when an entry of a list means no
/// layer, or when no layer is left.
std::vector<NamedLinear> fp8_linears(const Model& model, const Fp8Config& config);

/// Switches the products of `model`'s Linears that the config targets. Call it when the model is on
/// its device, before ranks split it.
std::unique_ptr<Fp8Layers> apply_fp8(const Model& model, const Fp8Config& config);

}  // namespace cosmos::modules
