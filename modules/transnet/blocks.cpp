#include "modules/transnet/blocks.h"

#include "modules/core/layers.h"

namespace cosmos::modules {
namespace {

constexpr int64_t kLookup = 101;  // frames that one is compared with
constexpr int64_t kSimilarity = 128;
constexpr double kBatchNormEps = 1e-3;

Tensor unit_rows(const Tensor& x) {
  return x / x.norm(2, {-1}, /*keepdim=*/true).clamp_min(1e-12);
}

}  // namespace

SeparableConv3dImpl::SeparableConv3dImpl(int64_t in, int64_t out, int64_t dilation)
    : space_(torch::nn::Conv3dOptions(in, 2 * out, {1, 3, 3}).padding({0, 1, 1}).bias(false)),
      time_(torch::nn::Conv3dOptions(2 * out, out, {3, 1, 1})
                .dilation({dilation, 1, 1})
                .padding({dilation, 0, 0})
                .bias(false)) {
  const auto layers = add_container(*this, "layers");
  layers->register_module("0", space_);
  layers->register_module("1", time_);
}

Tensor SeparableConv3dImpl::forward(const Tensor& x) {
  const Tensor y = space_->forward(x);
  // Over time alone: two dimensions, [T, H W], have the faster kernels.
  const int64_t dilation = time_->options.dilation()->at(0);
  return torch::conv2d(y.flatten(3), time_->weight.squeeze(4), {}, {1, 1}, {dilation, 0},
                       {dilation, 1})
      .view({y.size(0), time_->weight.size(0), y.size(2), y.size(3), y.size(4)});
}

DilatedConvBlockImpl::DilatedConvBlockImpl(int64_t in, int64_t filters)
    : bn_(torch::nn::BatchNormOptions(4 * filters).eps(kBatchNormEps)) {
  for (const int64_t dilation : {1, 2, 4, 8})
    branches_.push_back(register_module("Conv3D_" + std::to_string(dilation),
                                        SeparableConv3d(in, filters, dilation)));
  register_module("bn", bn_);
}

Tensor DilatedConvBlockImpl::forward(const Tensor& x) {
  Tensors outputs;
  for (SeparableConv3d& branch : branches_) outputs.push_back(branch->forward(x));
  return bn_->forward(torch::cat(outputs, 1));
}

DilatedConvStackImpl::DilatedConvStackImpl(int64_t in, int64_t filters, int64_t count) {
  const auto list = add_container(*this, "DDCNN");
  for (int64_t i = 0; i < count; ++i)
    blocks_.push_back(list->register_module(std::to_string(i),
                                            DilatedConvBlock(i == 0 ? in : 4 * filters, filters)));
}

Tensor DilatedConvStackImpl::forward(Tensor x) {
  Tensor shortcut;
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    x = blocks_[i]->forward(x);
    if (i + 1 < blocks_.size()) x = torch::relu(x);
    if (i == 0) shortcut = x;
  }
  return torch::avg_pool3d(torch::relu(x) + shortcut, {1, 2, 2});
}

Tensor neighbour_similarities(const Tensor& unit) {
  auto [B, T, N] = dims<3>(unit);
  const int64_t side = (kLookup - 1) / 2;
  const Tensor all = torch::constant_pad_nd(torch::bmm(unit, unit.transpose(1, 2)),
                                            {side, side});  // [B, T, T+100]
  const auto range = [&](int64_t n) {
    return torch::arange(n, torch::TensorOptions(torch::kLong).device(unit.device()));
  };
  const Tensor columns = range(T).unsqueeze(1) + range(kLookup);  // [T, 101]
  return all.gather(2, columns.unsqueeze(0).expand({B, T, kLookup}));
}

FrameSimilarityImpl::FrameSimilarityImpl(int64_t features)
    : projection_(features, kSimilarity), fc_(kLookup, kSimilarity) {
  register_module("projection", projection_);
  register_module("fc", fc_);
}

Tensor FrameSimilarityImpl::forward(const Tensor& means) {
  return torch::relu(fc_->forward(neighbour_similarities(unit_rows(projection_->forward(means)))));
}

ColorHistogramsImpl::ColorHistogramsImpl() : fc_(kLookup, kSimilarity) {
  register_module("fc", fc_);
}

Tensor ColorHistogramsImpl::forward(const Tensor& frames) {
  auto [B, T, H, W, channels] = dims<5>(frames);
  const Tensor eighths = frames.to(torch::kLong).bitwise_right_shift(5).view({B * T, H * W, 3});
  const Tensor bins =
      eighths.select(2, 0) * 64 + eighths.select(2, 1) * 8 + eighths.select(2, 2);  // [BT, HW]
  const auto options = torch::TensorOptions(fc_->weight.scalar_type()).device(frames.device());
  const Tensor counts = torch::zeros({B * T, 512}, options)
                            .scatter_add_(1, bins, torch::ones({B * T, H * W}, options));
  return torch::relu(fc_->forward(neighbour_similarities(unit_rows(counts).view({B, T, 512}))));
}

}  // namespace cosmos::modules
