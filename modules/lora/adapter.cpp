#include "modules/lora/adapter.h"

#include <cmath>

#include "modules/core/init.h"
#include "modules/core/random.h"
#include "ops/dropout/dropout.h"
#include "ops/lora_linear/lora_linear.h"

namespace cosmos::modules {
namespace {

int64_t seed_for(const DropoutKey& key, int64_t sample, int64_t layer) {
  // Two steps, since a Philox stream has one index: first the sample's, then the layer's.
  const uint64_t sample_seed =
      Philox(key.seed, Purpose::kDropout, static_cast<uint64_t>(sample)).next_u64();
  return static_cast<int64_t>(
      Philox(sample_seed, Purpose::kDropout, static_cast<uint64_t>(layer)).next_u64());
}

}  // namespace

void draw_lora_A(const Tensor& A, uint64_t seed, int64_t layer) {
  Philox random(seed, Purpose::kInit, static_cast<uint64_t>(layer));
  const double bound = 1.0 / std::sqrt(static_cast<double>(A.size(1)));
  A.copy_((random.uniform(A.sizes()) * 2 - 1) * bound);
}

LoraAdapter::LoraAdapter(const LinearImpl& linear, const Options& options, uint64_t seed)
    : options_(options) {
  const auto like = linear.weight.options().requires_grad(false);
  const int64_t in = linear.in_features(), out = linear.out_features();
  lora_A = register_parameter("lora_A", torch::empty({options.rank, in}, like));
  lora_B = register_parameter("lora_B", torch::empty({out, options.rank}, like));
  if (options.dora)
    magnitude = register_parameter("lora_magnitude_vector", torch::empty({out}, like));
  if (SkipInit::active()) return;
  torch::NoGradGuard no_grad;
  draw_lora_A(lora_A, seed, options.layer);
  lora_B.zero_();
  if (options.dora) magnitude.copy_(row_norm(linear.weight));
}

std::vector<int64_t> LoraAdapter::dropout_seeds(const Tensor& x) const {
  if (!is_training() || options_.dropout == 0) return {};
  require(options_.key && options_.key->samples.has_value(),
          "LoRA dropout: call set_dropout_samples() before each forward in training mode");
  std::vector<int64_t> seeds;
  for (const int64_t sample : *options_.key->samples)
    seeds.push_back(seed_for(*options_.key, sample, options_.layer));
  // Samples may share this input (one timestep for all): then the first one's mask.
  const bool own = x.dim() > 0 && x.size(0) == static_cast<int64_t>(seeds.size());
  if (!own && seeds.size() > 1) seeds.resize(1);
  return seeds;
}

std::vector<int64_t> LoraAdapter::dropout_slice(const Tensor& x) const {
  if (part_.token_ranks == 1 && part_.feature_ranks == 1) return {};
  const int64_t tokens = x.dim() > 1 ? x.size(-2) : 1, features = x.size(-1);
  return {tokens, part_.token_rank * tokens, part_.token_ranks * tokens,
          part_.feature_rank * features, part_.feature_ranks * features};
}

std::optional<int64_t> LoraAdapter::split_dim(const std::string& name, Split split) const {
  if (split == Split::kRow) return name == "lora_A" ? std::optional<int64_t>(1) : std::nullopt;
  return name == "lora_A" ? std::nullopt : std::optional<int64_t>(0);
}

Tensor LoraAdapter::forward(const Tensor& x, const LinearImpl& linear) {
  // A weight of another dtype (quantised, or kept wider than its adapter) makes its own product.
  const bool alike = x.scalar_type() == lora_A.scalar_type() &&
                     linear.weight.scalar_type() == lora_A.scalar_type();
  if (magnitude.defined() || !alike || linear.product_rule())
    return LinearAdapter::forward(x, linear);
  const std::vector<int64_t> seeds = dropout_seeds(x);
  return ops::lora_linear(x, linear.weight, linear.product_bias(),
                          {lora_A, lora_B, options_.scaling, seeds.empty() ? 0 : options_.dropout,
                           seeds, dropout_slice(x)});
}

Tensor LoraAdapter::adapt(const Tensor& x, const Tensor& base, const LinearImpl& linear) {
  const Tensor whole = x.to(lora_A.scalar_type());
  const std::vector<int64_t> seeds = dropout_seeds(x);
  const Tensor input =
      seeds.empty() ? whole : ops::seeded_dropout(whole, options_.dropout, seeds, dropout_slice(x));
  const Tensor update =
      torch::linear(torch::linear(input, lora_A), lora_B) * options_.scaling;  // [..., out]
  if (!magnitude.defined()) return base + update.to(base.scalar_type());

  Tensor norm = row_norm(linear.weight);
  if (linear.collective()) norm = linear.collective()->row_norm(norm);
  const Tensor gain = magnitude / norm.to(magnitude.scalar_type());  // [out]
  Tensor product;  // of what the adapter sees, without bias
  if (!input.is_same(whole)) {
    product = linear.base_product(input.to(linear.weight.scalar_type()), /*with_bias=*/false);
  } else {
    const Tensor bias = linear.product_bias();
    product = bias.defined() ? base - bias : base;
  }
  return base + ((gain - 1) * product + gain * update).to(base.scalar_type());
}

Tensor LoraAdapter::delta() const {
  torch::NoGradGuard no_grad;
  return torch::mm(lora_B.to(torch::kFloat32), lora_A.to(torch::kFloat32)) * options_.scaling;
}

Tensor LoraAdapter::row_norm(const Tensor& weight) const {
  torch::NoGradGuard no_grad;
  return (weight.to(torch::kFloat32) + delta()).norm(2, {1});
}

bool LoraAdapter::has_effect(const LinearImpl& linear) const {
  torch::NoGradGuard no_grad;
  if (lora_A.any().item<bool>() && lora_B.any().item<bool>()) return true;
  if (!magnitude.defined()) return false;
  const Tensor norm = row_norm(linear.weight).to(magnitude.scalar_type());
  return !torch::allclose(magnitude, norm, /*rtol=*/1e-6, /*atol=*/0);
}

}  // namespace cosmos::modules
