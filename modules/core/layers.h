#pragma once

// Small layers that more than one family of models uses. Parameter names are torch.nn's.

#include <memory>
#include <optional>
#include <string>

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// y = x / sqrt(mean(x²) + eps) * weight over the last dimension.  Parameter: weight [dim].
class RmsNormImpl : public torch::nn::Module {
 public:
  RmsNormImpl(int64_t dim, double eps);
  Tensor forward(const Tensor& x);

  Tensor weight;
  double eps;
};
TORCH_MODULE(RmsNorm);

/// y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias over the last dimension.  Parameters:
/// weight [dim], bias [dim].
class LayerNormImpl : public torch::nn::Module {
 public:
  LayerNormImpl(int64_t dim, double eps);
  Tensor forward(const Tensor& x);

  Tensor weight, bias;
  double eps;
};
TORCH_MODULE(LayerNorm);

/// Rows of a table.  Parameter: weight [rows, dim].
class EmbeddingImpl : public torch::nn::Module {
 public:
  /// `padding_row` gets no gradient from forward().
  EmbeddingImpl(int64_t rows, int64_t dim, std::optional<int64_t> padding_row = std::nullopt);
  /// ids: int64 [...], each in [0, rows) -> [..., dim]
  Tensor forward(const Tensor& ids);

  Tensor weight;

 private:
  int64_t padding_row_;
};
TORCH_MODULE(Embedding);

/// An empty child module, for parameter names that hold list indices ("to_out.0.weight").
std::shared_ptr<torch::nn::Module> add_container(torch::nn::Module& parent,
                                                 const std::string& name);

}  // namespace cosmos::modules
