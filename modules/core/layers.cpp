#include "modules/core/layers.h"

#include "modules/core/hollow.h"
#include "modules/core/init.h"
#include "ops/rms_norm/rms_norm.h"

namespace cosmos::modules {

RmsNormImpl::RmsNormImpl(int64_t dim, double eps) : eps(eps) {
  weight = register_parameter("weight", new_parameter({dim}));
  if (!SkipInit::active()) weight.detach().fill_(1);
}

Tensor RmsNormImpl::forward(const Tensor& x) {
  return ops::rms_norm(x, weight, eps);
}

LayerNormImpl::LayerNormImpl(int64_t dim, double eps) : eps(eps) {
  weight = register_parameter("weight", new_parameter({dim}));
  bias = register_parameter("bias", new_parameter({dim}));
  if (SkipInit::active()) return;
  weight.detach().fill_(1);
  bias.detach().zero_();
}

Tensor LayerNormImpl::forward(const Tensor& x) {
  return torch::layer_norm(x, {x.size(-1)}, weight, bias, eps);
}

EmbeddingImpl::EmbeddingImpl(int64_t rows, int64_t dim, std::optional<int64_t> padding_row)
    : padding_row_(padding_row.value_or(-1)) {
  weight = register_parameter("weight", new_parameter({rows, dim}));
  if (!SkipInit::active()) weight.detach().normal_();  // torch.nn.Embedding's initialisation
}

Tensor EmbeddingImpl::forward(const Tensor& ids) {
  return torch::embedding(weight, ids, padding_row_);
}

std::shared_ptr<torch::nn::Module> add_container(torch::nn::Module& parent,
                                                 const std::string& name) {
  return parent.register_module(name, std::make_shared<torch::nn::Module>(name));
}

}  // namespace cosmos::modules
