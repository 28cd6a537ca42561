#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/tensor.h>
#include <vector>

#include "ops/core/check.h"
#include "ops/rms_norm/rms_norm.h"

namespace cosmos::ops {
namespace {

constexpr int64_t kAxes = 3;  // time, height, width

/// The axis that frequency j turns with.
int64_t axis_of(int64_t j, at::IntArrayRef sections, bool interleaved) {
  if (interleaved) return j < kAxes * sections[j % kAxes] ? j % kAxes : 0;
  return j < sections[0] ? 0 : (j < sections[0] + sections[1] ? 1 : 2);
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> mrope_tables(const at::Tensor& position_ids, double theta,
                                                int64_t head_dim, at::IntArrayRef sections,
                                                bool interleaved) {
  require(position_ids.defined() && position_ids.dim() == 3 && position_ids.size(0) == kAxes &&
              c10::isIntegralType(position_ids.scalar_type(), /*includeBool=*/false),
          "mrope_tables: position_ids: expected integers [3, B, L], got ", describe(position_ids));
  require(head_dim > 0 && head_dim % 2 == 0 && theta > 0,
          "mrope_tables: expected an even head_dim and theta more than 0, got ", head_dim, " and ",
          theta);
  const int64_t pairs = head_dim / 2;
  require(sections.size() == kAxes && sections[0] >= 0 && sections[1] >= 0 && sections[2] >= 0 &&
              sections[0] + sections[1] + sections[2] == pairs,
          "mrope_tables: sections: expected 3 numbers that add to head_dim / 2 = ", pairs, ", got ",
          sections);
  const at::NoGradGuard no_grad;
  std::vector<int64_t> axes;
  for (int64_t j = 0; j < pairs; ++j) axes.push_back(axis_of(j, sections, interleaved));
  const auto options = position_ids.options();
  const at::Tensor axis = at::tensor(axes, at::kLong).to(position_ids.device());
  const at::Tensor exponent =
      at::arange(0, head_dim, 2, options.dtype(at::kFloat)) / static_cast<double>(head_dim);
  const at::Tensor frequency = at::pow(theta, exponent).reciprocal();
  const at::Tensor positions = position_ids.index_select(0, axis).permute({1, 2, 0});
  const at::Tensor angle = positions.to(at::kFloat) * frequency;
  return {angle.cos(), angle.sin()};
}

}  // namespace cosmos::ops
