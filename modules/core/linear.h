#pragma once

// Every product with a weight goes through Linear, so that adapters (LoRA, DoRA), quantised bases
// and column/row parallelism are applied from outside, in one fixed order:
// collective(adapter(product)); the product is x Wᵀ + b, or a LinearProduct in its place.

#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "modules/core/postponed_gradients.h"
#include "modules/core/tensor.h"
#include "ops/linear_cross_entropy/split_linear_cross_entropy.h"

namespace cosmos::modules {

class LinearImpl;
class Linear;

/// How ranks split a Linear's weight [out, in] between them. The names are those of y = x A with
/// A = Wᵀ (Megatron-LM, Shoeybi et al. 2019).
enum class Split {
  kColumn,  ///< outputs: rows of W, and of the bias
  kRow,     ///< inputs: columns of W; the partial outputs are summed, then the bias is added
};

/// Changes what a Linear computes without the model knowing. One is attached at most.
class LinearAdapter : public torch::nn::Module {
 public:
  /// The dimension on which its parameter `name` is split where the Linear is; none: every rank has
  /// all of it.
  virtual std::optional<int64_t> split_dim(const std::string& name, Split split) const = 0;
  /// Whether it looks at the Linear's weight itself, not at the product alone (DoRA's norms).
  virtual bool reads_weight() const { return false; }
  /// Adapts `base` = x Wᵀ + b.  x: [..., in], base: [..., out] -> [..., out]
  virtual Tensor adapt(const Tensor& x, const Tensor& base, const LinearImpl& linear) = 0;
  /// The adapted Linear, from x on: adapt() of its product, or both as one operator.
  virtual Tensor forward(const Tensor& x, const LinearImpl& linear);
};

/// What ranks do together around their slices of a Linear, installed by the trainer. Both calls are
/// linear in their tensor, and backward is the exact adjoint.
class LinearCollective {
 public:
  virtual ~LinearCollective() = default;
  /// What the product is given. Linears that share an input and this object share the result.
  virtual Tensor enter(const Tensor& x) const = 0;
  /// The output, from this rank's (adapted) product.
  virtual Tensor leave(const Tensor& product) const = 0;
  /// Whether the bias is added after leave(), since products are summed there.
  virtual bool sums() const = 0;
  /// Where W's rows are the classes of a head: this rank's, of which it has `rows`; none: all.
  virtual std::optional<ops::ClassRange> class_range(int64_t rows) const = 0;
  /// Norms of W's rows, from those of this rank's columns of them; outside of any graph.
  virtual Tensor row_norm(const Tensor& partial) const = 0;
};

/// How the product with a weight is computed, installed by the trainer (8-bit numbers,
/// modules/fp8).
class LinearProduct {
 public:
  virtual ~LinearProduct() = default;
  /// x Wᵀ + bias of this rank's slice; `bias` may be undefined.
  virtual Tensor operator()(const Tensor& x, const Tensor& weight, const Tensor& bias) const = 0;
};

/// y = x Wᵀ + b.  x: [..., in_features] -> [..., out_features].  Parameter names as
/// torch.nn.Linear.
class LinearImpl : public torch::nn::Module {
 public:
  LinearImpl(int64_t in_features, int64_t out_features, bool bias = true);
  /// Without bias, sharing `weight` with another module (tied embeddings).
  explicit LinearImpl(const Tensor& weight);

  Tensor forward(const Tensor& x);

  /// Attaches `adapter` as the child module "adapter"; its parameters then belong to the model.
  void set_adapter(std::shared_ptr<LinearAdapter> adapter);
  /// Detaches and returns the adapter (null when there is none).
  std::shared_ptr<LinearAdapter> take_adapter();
  const std::shared_ptr<LinearAdapter>& adapter() const { return adapter_; }

  /// Weight and bias are this rank's slices from now on, and `collective` stands around them.
  void set_collective(std::shared_ptr<const LinearCollective> collective) {
    collective_ = std::move(collective);
  }
  const std::shared_ptr<const LinearCollective>& collective() const { return collective_; }
  /// The bias that belongs to the product: none where it is added after a sum over ranks.
  Tensor product_bias() const { return collective_ && collective_->sums() ? Tensor() : bias; }

  /// From now on backward leaves the weight's gradient to `later` (null: computes it at once). That
  /// of an adapted Linear, or of one with a product_rule(), is computed at once.
  void postpone_weight_gradient(std::shared_ptr<PostponedGradients> later) {
    postponed_ = std::move(later);
  }

  /// null: torch::linear.
  void set_product_rule(std::shared_ptr<const LinearProduct> rule) { rule_ = std::move(rule); }
  const std::shared_ptr<const LinearProduct>& product_rule() const { return rule_; }
  /// What adapters add to: x Wᵀ and, unless told otherwise, product_bias().
  Tensor base_product(const Tensor& x, bool with_bias = true) const;

  int64_t in_features() const { return weight.size(1); }   ///< of this rank
  int64_t out_features() const { return weight.size(0); }  ///< of this rank

  Tensor weight;  ///< [out_features, in_features]
  Tensor bias;    ///< [out_features], undefined when bias = false

 private:
  friend Tensors linear_group(const Tensor& x, std::initializer_list<Linear> linears);
  /// The Linear of an input that went through collective()->enter().
  Tensor forward_entered(const Tensor& x);
  /// adapter(x Wᵀ + b) of this rank's slice.
  Tensor product(const Tensor& x);

  std::shared_ptr<LinearAdapter> adapter_;
  std::shared_ptr<const LinearCollective> collective_;
  std::shared_ptr<PostponedGradients> postponed_;
  std::shared_ptr<const LinearProduct> rule_;
};
TORCH_MODULE(Linear);

struct NamedLinear {
  std::string name;  ///< path in the model: transformer_blocks.3.attn1.to_q
  std::shared_ptr<LinearImpl> linear;
};

/// Every Linear below `model`, in registration order, each once: what adapters are attached to.
std::vector<NamedLinear> named_linears(const torch::nn::Module& model);

/// Several products of one input (q, k, v; gate, up), called as one group so that gathers, casts
/// and shared factors happen once.
Tensors linear_group(const Tensor& x, std::initializer_list<Linear> linears);

/// ops::linear_cross_entropy of logits that `head` would make of hidden [..., D]; its rows, the
/// classes, may be split over ranks.  target: int64 [...]
Tensor linear_cross_entropy(const Tensor& hidden, const Linear& head, const Tensor& target,
                            int64_t ignore_index = -100, double label_smoothing = 0,
                            double z_loss = 0, std::string_view reduction = "mean");
/// The same for ops::linear_log_probs, and for linear_log_probs_entropy: {log p, entropy}.
Tensor linear_log_probs(const Tensor& hidden, const Linear& head, const Tensor& target,
                        double temperature = 1, int64_t ignore_index = -100);
std::tuple<Tensor, Tensor> linear_log_probs_entropy(const Tensor& hidden, const Linear& head,
                                                    const Tensor& target, double temperature = 1,
                                                    int64_t ignore_index = -100);

}  // namespace cosmos::modules
