#include "modules/dit/embeddings.h"

#include <algorithm>
#include <cmath>

#include "modules/core/hollow.h"
#include "modules/core/init.h"
#include "ops/patchify/patchify.h"

namespace cosmos::modules {

PatchEmbedImpl::PatchEmbedImpl(const DitConfig& config, int64_t more_channels)
    : patch_(config.patch_size) {
  const int64_t channels =
      config.in_channels + (config.concat_padding_mask ? 1 : 0) + more_channels;
  proj_ = register_module("proj", Linear(channels * patch_[0] * patch_[1] * patch_[2],
                                         config.hidden_size(), /*bias=*/false));
}

Tensor PatchEmbedImpl::forward(const Tensor& x) {
  return proj_(ops::patchify(x, patch_, ops::PatchOrder::kChannelsFirst).flatten(2, 3));
}

Tensor unpatchify(const Tensor& x, const PatchGrid& grid, const std::vector<int64_t>& patch) {
  return ops::unpatchify(x.unflatten(2, {grid.rows, grid.columns}), patch,
                         ops::PatchOrder::kChannelsLast);
}

Tensor sinusoid(const Tensor& timestep, int64_t dim) {
  const int64_t half = dim / 2;
  Tensor index = torch::arange(half, timestep.options().dtype(torch::kFloat32));
  Tensor frequency = torch::exp(index * -std::log(10000.0) / static_cast<double>(half));
  Tensor angle = timestep.to(torch::kFloat32).unsqueeze(-1) * frequency;  // [n, dim / 2]
  return torch::cat({angle.cos(), angle.sin()}, -1);
}

TimeEmbedImpl::TimeEmbedImpl(int64_t dim) {
  auto t_embedder = add_container(*this, "t_embedder");
  linear_1_ = t_embedder->register_module("linear_1", Linear(dim, dim, /*bias=*/false));
  linear_2_ = t_embedder->register_module("linear_2", Linear(dim, 3 * dim, /*bias=*/false));
  norm_ = register_module("norm", RmsNorm(dim, 1e-6));
}

Tensors TimeEmbedImpl::forward(const Tensor& s, const Tensors& more) {
  Tensor temb = linear_2_(torch::silu(linear_1_(s)));
  if (more.empty()) return {torch::silu(norm_(s)), temb};
  return {torch::silu(norm_(s + more[0])), temb + more[1]};
}

LearnablePosEmbedImpl::LearnablePosEmbedImpl(const DitConfig& config) {
  const int64_t dim = config.hidden_size();
  const auto table = [&](const char* name, int axis) {
    Tensor weight = new_parameter({config.max_size[axis] / config.patch_size[axis], dim});
    if (!SkipInit::active()) truncated_normal_(weight, 1.0 / std::sqrt(static_cast<double>(dim)));
    return register_parameter(name, weight);
  };
  pos_emb_t_ = table("pos_emb_t", 0);
  pos_emb_h_ = table("pos_emb_h", 1);
  pos_emb_w_ = table("pos_emb_w", 2);
}

Tensor LearnablePosEmbedImpl::forward(const PatchGrid& grid, torch::Dtype dtype) {
  const auto rows_of = [](const Tensor& table, int64_t count, const char* axis) {
    require(count <= table.size(0), "hidden_states: ", count, " patches along ", axis,
            ", but the learnable position embedding has ", table.size(0),
            " (max_size in config.json)");
    return table.narrow(0, 0, count);
  };
  const int64_t D = pos_emb_t_.size(1);
  Tensor e = rows_of(pos_emb_t_, grid.frames, "frames").view({grid.frames, 1, 1, D}) +
             rows_of(pos_emb_h_, grid.rows, "rows").view({1, grid.rows, 1, D}) +
             rows_of(pos_emb_w_, grid.columns, "columns").view({1, 1, grid.columns, D});
  Tensor norm = torch::linalg_vector_norm(e, 2, {-1}, /*keepdim=*/true) / std::sqrt(double(D));
  return (e / (norm + 1e-6)).view({1, grid.frames, grid.tokens_per_frame(), D}).to(dtype);
}

RopeTable rope_table(const DitConfig& config, const PatchGrid& grid, std::optional<double> fps,
                     torch::Device device) {
  const auto options = torch::TensorOptions().dtype(torch::kFloat32).device(device);
  const int64_t counts[] = {grid.frames, grid.rows, grid.columns};
  const int64_t spatial = config.attention_head_dim / 6 * 2;
  const int64_t widths[] = {config.attention_head_dim - 2 * spatial, spatial, spatial};
  int64_t longest = 0;
  for (int axis = 0; axis < 3; ++axis)
    longest = std::max(longest, config.max_size[axis] / config.patch_size[axis]);

  Tensors angles;  // per axis, broadcast over the grid: [t, h, w, d' / 2]
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t count = counts[axis], width = widths[axis];
    require(count <= longest, "hidden_states: ", count, " patches along one axis, but RoPE has ",
            longest, " positions (max_size in config.json)");
    // In float32 and in this order, as the public class computes it: angles reach hundreds of
    // radians, where a rounding more is visible.
    const double theta =
        width == 0 ? 1.0 : 10000.0 * std::pow(config.rope_scale[axis], width / (width - 2.0));
    Tensor exponent = torch::arange(0, width, 2, options) / static_cast<double>(width);
    Tensor frequency = 1.0 / torch::pow(theta, exponent);
    Tensor position = torch::arange(count, options);
    if (axis == 0 && fps) position = position / *fps * 24.0;
    std::vector<int64_t> shape = {1, 1, 1, width / 2};
    shape[axis] = count;
    angles.push_back(torch::outer(position, frequency)
                         .view(shape)
                         .expand({grid.frames, grid.rows, grid.columns, width / 2}));
  }
  Tensor angle = torch::cat(angles, -1).view({grid.tokens(), config.attention_head_dim / 2});
  return {.cos = angle.cos(), .sin = angle.sin()};
}

}  // namespace cosmos::modules
