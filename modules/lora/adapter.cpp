#include "modules/lora/adapter.h"

#include <ATen/CPUGeneratorImpl.h>
#include <cmath>

#include "modules/core/init.h"
#include "modules/core/random.h"

namespace cosmos::modules {
namespace {

// torch's own generator of the device, seeded for one (sample, layer): masks are drawn where x
// lies.
at::Generator generator_for(const DropoutKey& key, int64_t sample, int64_t layer,
                            torch::Device device) {
  // Two steps, since a Philox stream has one index: first the sample's, then the layer's.
  const uint64_t sample_seed =
      Philox(key.seed, Purpose::kDropout, static_cast<uint64_t>(sample)).next_u64();
  const uint64_t seed =
      Philox(sample_seed, Purpose::kDropout, static_cast<uint64_t>(layer)).next_u64();
  if (device.is_cpu()) return at::detail::createCPUGenerator(seed);
  at::Generator generator = at::globalContext()
                                .getAcceleratorHooksInterface(device.type())
                                .getNewGenerator(device.index());
  generator.set_current_seed(seed);
  return generator;
}

}  // namespace

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
  Philox random(seed, Purpose::kInit, static_cast<uint64_t>(options.layer));
  const double bound = 1.0 / std::sqrt(static_cast<double>(in));
  lora_A.copy_((random.uniform({options.rank, in}) * 2 - 1) * bound);
  lora_B.zero_();
  if (options.dora) magnitude.copy_(row_norm(linear.weight));
}

Tensor LoraAdapter::drop(const Tensor& x) const {
  if (!is_training() || options_.dropout == 0) return x;
  require(options_.key && options_.key->samples.has_value(),
          "LoRA dropout: call set_dropout_samples() before each forward in training mode");
  const std::vector<int64_t>& samples = *options_.key->samples;
  if (samples.empty()) return x;
  const double keep = 1 - options_.dropout;
  Tensor mask = torch::empty(x.sizes(), x.options().requires_grad(false));
  const auto count = static_cast<int64_t>(samples.size());
  if (x.dim() > 0 && x.size(0) == count) {
    for (int64_t i = 0; i < count; ++i)
      mask[i].bernoulli_(keep,
                         generator_for(*options_.key, samples[i], options_.layer, x.device()));
  } else {
    // Samples share this input (one timestep for all): the first one's stream.
    mask.bernoulli_(keep, generator_for(*options_.key, samples[0], options_.layer, x.device()));
  }
  return x * mask.div_(keep);
}

Tensor LoraAdapter::adapt(const Tensor& x, const Tensor& base, const LinearImpl& linear) {
  const Tensor whole = x.to(lora_A.scalar_type());
  const Tensor input = drop(whole);
  const Tensor update =
      torch::linear(torch::linear(input, lora_A), lora_B) * options_.scaling;  // [..., out]
  if (!magnitude.defined()) return base + update.to(base.scalar_type());

  const Tensor gain = magnitude / row_norm(linear.weight).to(magnitude.scalar_type());  // [out]
  Tensor product;  // of what the adapter sees, without bias
  if (!input.is_same(whole)) {
    product = torch::linear(input.to(linear.weight.scalar_type()), linear.weight);
  } else {
    product = linear.bias.defined() ? base - linear.bias : base;
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
