#include "trainer/parallel/fp8_gather.h"

#include "trainer/parallel/shard_bucket.h"
#include "trainer/parallel/shard_layout.h"

namespace cosmos::trainer {
namespace {

constexpr int64_t kBlock = 128;

int64_t blocks(int64_t n) {
  return (n + kBlock - 1) / kBlock;
}

std::vector<int64_t> scale_sizes(at::IntArrayRef sizes, ops::Fp8Granularity granularity) {
  if (granularity == ops::Fp8Granularity::kTensor) return {};
  return {blocks(sizes[0]), blocks(sizes[1])};
}

/// Rows from a multiple of 128 on, zeros above.
Tensor from_block_begin(const Tensor& rows, int64_t first_row) {
  return torch::constant_pad_nd(rows, {0, 0, first_row % kBlock, 0});
}

/// The largest number of each 128 x 128 block; blocks at the edges are smaller.
Tensor block_amax(const Tensor& x) {
  const int64_t rows = blocks(x.size(0)), columns = blocks(x.size(1));
  return torch::constant_pad_nd(x, {0, columns * kBlock - x.size(1), 0, rows * kBlock - x.size(0)})
      .view({rows, kBlock, columns, kBlock})
      .abs()
      .amax({1, 3});
}

}  // namespace

bool Fp8Gather::takes(const modules::LinearImpl& linear, at::IntArrayRef sizes) {
  return sizes[1] % 4 == 0 && !(linear.adapter() && linear.adapter()->reads_weight());
}

int64_t Fp8Gather::scales(at::IntArrayRef sizes, ops::Fp8Granularity granularity) {
  return c10::multiply_integers(scale_sizes(sizes, granularity));
}

Fp8Gather::Fp8Gather(modules::Fp8Layers& layers, std::vector<int64_t> numbers,
                     const Tensors& weights, const Group& group)
    : layers_(&layers), group_(&group), options_(layers.weight_options()) {
  int64_t count = 0;
  for (const Tensor& w : weights) count += scales(w.sizes(), options_.granularity);
  amax_ = torch::zeros({count}, weights[0].options().dtype(torch::kFloat32).requires_grad(false));
  int64_t next = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const Tensor& w = weights[i];
    const std::vector<int64_t> shape = scale_sizes(w.sizes(), options_.granularity);
    const int64_t n = c10::multiply_integers(shape);
    const Tensor values =
        torch::empty(w.sizes(), w.options().dtype(at::kFloat8_e4m3fn).requires_grad(false));
    weights_.push_back({.layer = numbers[i],
                        .dtype = w.scalar_type(),
                        .first_row = shard_rows(w.size(0), group.rank(), group.size()).begin,
                        .whole = {values, torch::ones(shape, amax_.options())},
                        .amax = amax_.narrow(0, next, n).view(shape)});
    next += n;
    layers.set_gathered(numbers[i], weights_.back().whole);
  }
  free();
}

Tensor Fp8Gather::amax_of(const Weight& weight, const Tensor& rows) const {
  Tensor found = torch::zeros_like(weight.amax);
  if (rows.numel() == 0) return found;
  const Tensor x = rows.detach().to(weight.dtype).to(torch::kFloat32);
  if (found.dim() == 0) return x.abs().amax();
  const Tensor here = block_amax(from_block_begin(x, weight.first_row));
  found.narrow(0, weight.first_row / kBlock, here.size(0)).copy_(here);
  return found;
}

int64_t Fp8Gather::begin_scales(const Tensors& rows, bool learning) {
  const torch::NoGradGuard no_grad;
  bool own = false;  // some scale follows from the weights as they are now
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    Weight& w = weights_[i];
    w.amax.copy_(amax_of(w, rows[i]));
    if (learning) layers_->record_weight(w.layer, w.amax);
    own |= !layers_->weight_scale(w.layer).defined();
  }
  if (!own) return 0;
  pending_ = group_->all_reduce(amax_, Group::Reduce::kMax);
  return static_cast<int64_t>(amax_.nbytes());
}

void Fp8Gather::end_scales() {
  const torch::NoGradGuard no_grad;
  pending_.wait();
  const Tensor max = torch::full({}, ops::fp8_largest(options_.dtype), amax_.options());
  for (Weight& w : weights_) {
    const Tensor given = layers_->weight_scale(w.layer);
    w.whole.scale.copy_(
        given.defined() ? given : ops::reference::fp8_scale(w.amax, max, options_.power_of_two));
  }
}

Tensor Fp8Gather::quantise(const Weight& weight, const Tensor& rows) const {
  // Rows that are away come in the model's dtype.
  const Tensor x = rows.detach().to(weight.whole.scale.device(), weight.dtype);
  if (x.numel() == 0) return x.to(at::kFloat8_e4m3fn);
  if (weight.amax.dim() == 0) return ops::fp8_quantize(x, options_, weight.whole.scale).values;
  const Tensor padded = from_block_begin(x, weight.first_row);
  const Tensor scale =
      weight.whole.scale.narrow(0, weight.first_row / kBlock, blocks(padded.size(0)));
  return ops::fp8_quantize(padded, options_, scale.contiguous())
      .values.narrow(0, padded.size(0) - x.size(0), x.size(0));
}

Tensors Fp8Gather::quantised(const Tensors& rows) const {
  const torch::NoGradGuard no_grad;
  Tensors out;
  for (std::size_t i = 0; i < weights_.size(); ++i)
    out.push_back(quantise(weights_[i], rows[i]).contiguous().view(torch::kFloat32));
  return out;
}

Tensors Fp8Gather::allocate() {
  Tensors out;
  for (const Weight& w : weights_) {
    set_storage(w.whole.values, static_cast<std::size_t>(w.whole.values.numel()));
    out.push_back(w.whole.values.view(torch::kFloat32));
  }
  return out;
}

void Fp8Gather::free() {
  for (const Weight& w : weights_) set_storage(w.whole.values, 0);
}

}  // namespace cosmos::trainer
