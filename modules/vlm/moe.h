#pragma once

// Mixture of experts: a router sends every token through k of E MLPs.
//
//   p = softmax(Wg x),  S = the k largest of p,  y = sum_{e in S} w_e (Wdown_e swiglu(Wgate_up_e
//   x)) w_e = p_e, or p_e / sum_S p where the weights are normalised
//
// Tokens are sorted by expert, so that an expert's product runs once over its tokens. Which rank
// holds which expert is decided from outside: an ExpertDispatch carries sorted tokens to where the
// experts are and back; without one, all are here.

#include <memory>
#include <vector>

#include "modules/core/linear.h"
#include "modules/core/weight_stacks.h"

namespace cosmos::modules {

/// The weights of a rank's experts, and their products.  Parameters as transformers 5.23 fuses
/// them: gate_up_proj [E, 2 I, D] (gate's rows, then up's), down_proj [E, D, I].
class ExpertsImpl : public WeightStacksImpl {
 public:
  ExpertsImpl(int64_t experts, int64_t dim, int64_t inner_dim);

  /// x: [N, D], sorted by expert; counts: tokens of each expert held here, N in all -> [N, D]
  Tensor forward(const Tensor& x, const std::vector<int64_t>& counts);

  Tensor gate_up_proj, down_proj;
};
TORCH_MODULE(Experts);

/// Runs sorted tokens through experts that may live on other ranks.
class ExpertDispatch {
 public:
  virtual ~ExpertDispatch() = default;
  /// x: [N, D] sorted by expert; counts: tokens of each of all E experts -> [N, D], in that order.
  virtual Tensor run(const Tensor& x, const std::vector<int64_t>& counts, ExpertsImpl& experts) = 0;
};

struct MoeOptions {
  int64_t dim = 0, inner_dim = 0, experts = 1, experts_per_token = 1;
  bool normalize = true;
};

/// What a token's router decided.  index, weight: [N, k]
struct Routing {
  Tensor index, weight;
};

/// Parameters: gate.weight [E, D], experts.*.
class SparseMoeBlockImpl : public torch::nn::Module {
 public:
  explicit SparseMoeBlockImpl(const MoeOptions& options);

  /// x: [..., D] -> [..., D]
  Tensor forward(const Tensor& x);
  /// x: [N, D]
  Routing route(const Tensor& x);

  /// null: all experts are here.
  void set_dispatch(std::shared_ptr<ExpertDispatch> dispatch) { dispatch_ = std::move(dispatch); }

 private:
  MoeOptions options_;
  Linear gate_{nullptr};
  Experts experts_{nullptr};
  std::shared_ptr<ExpertDispatch> dispatch_;
};
TORCH_MODULE(SparseMoeBlock);

}  // namespace cosmos::modules
