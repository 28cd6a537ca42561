#include "modules/vlm/rope.h"

#include <cmath>
#include <numbers>

#include "ops/rms_norm/rms_norm.h"

namespace cosmos::modules {
namespace {

// theta^(-2 j / dim) for j < dim / 2
Tensor frequencies(double theta, int64_t dim, const torch::Device& device) {
  const auto options = torch::TensorOptions(torch::kFloat32).device(device);
  return torch::pow(theta, torch::arange(0, dim, 2, options) / static_cast<double>(dim))
      .reciprocal();
}

// Llama 3.1: long waves are slowed by `factor`, short ones are not, those between partly.
Tensor llama3(const RopeConfig& rope, const Tensor& frequency) {
  const double context = rope.original_max_position_embeddings;
  const Tensor wavelength = 2 * std::numbers::pi / frequency;
  const Tensor slowed = frequency / rope.factor;
  const Tensor smooth = (context / wavelength - rope.low_freq_factor) /
                        (rope.high_freq_factor - rope.low_freq_factor);
  const Tensor between = (1 - smooth) * slowed + smooth * frequency;
  Tensor out = torch::where(wavelength > context / rope.low_freq_factor, slowed, frequency);
  const Tensor medium = (wavelength <= context / rope.low_freq_factor)
                            .logical_and(wavelength >= context / rope.high_freq_factor);
  return torch::where(medium, between, out);
}

}  // namespace

RopeTables text_rope(const RopeConfig& rope, int64_t head_dim, const Tensor& position_ids) {
  const torch::NoGradGuard no_grad;
  if (rope.type == "default") {
    auto [cos, sin] =
        ops::mrope_tables(position_ids, rope.theta, head_dim, rope.sections, rope.interleaved);
    return {cos, sin};
  }
  Tensor frequency = frequencies(rope.theta, head_dim, position_ids.device());
  frequency = rope.type == "llama3" ? llama3(rope, frequency) : frequency / rope.factor;
  const Tensor angle = position_ids[0].unsqueeze(-1).to(torch::kFloat32) * frequency;
  return {angle.cos(), angle.sin()};
}

RopeTables vision_rope(double theta, int64_t head_dim, const Tensor& rows_columns) {
  const torch::NoGradGuard no_grad;
  const Tensor frequency = frequencies(theta, head_dim / 2, rows_columns.device());
  const Tensor angle = (rows_columns.unsqueeze(-1).to(torch::kFloat32) * frequency).flatten(1);
  return {angle.cos(), angle.sin()};
}

}  // namespace cosmos::modules
