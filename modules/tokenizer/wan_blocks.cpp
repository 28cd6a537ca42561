#include "modules/tokenizer/wan_blocks.h"

#include "modules/core/init.h"
#include "ops/channel_norm/channel_norm.h"

namespace cosmos::modules {
namespace {

// Sequential(parameter-free layer, Conv2d): the convolution is child "1" of "resample".
void register_resample(torch::nn::Module& parent, const FrameConv2d& conv) {
  auto sequence = std::make_shared<torch::nn::Module>();
  sequence->register_module("1", conv.ptr());
  parent.register_module("resample", sequence);
}

CausalConv3d wan_time_conv(int64_t in, int64_t out, int64_t stride, int64_t front) {
  return CausalConv3d(CausalConvOptions{
      .in = in, .out = out, .kernel = {3, 1, 1}, .stride = {stride, 1, 1}, .front = front});
}

bool starts_clip(const TimeCache* cache) {
  return !cache || cache->first_chunk();
}

// The operator's channels are dimension 1; [B, T, H, W, C] is such a tensor, channels-last.
Tensor channel_norm(const Tensor& x, const Tensor& gamma, bool activation) {
  const Tensor channels_first = x.contiguous().movedim(-1, 1);
  return ops::rms_norm_silu(channels_first, gamma.flatten(), 1e-12, activation).movedim(1, -1);
}

}  // namespace

CausalConv3d wan_conv(int64_t in, int64_t out, int64_t kernel) {
  return CausalConv3d(CausalConvOptions{.in = in,
                                        .out = out,
                                        .kernel = {kernel, kernel, kernel},
                                        .space_pad = kernel / 2,
                                        .front = kernel - 1});
}

ChannelNormImpl::ChannelNormImpl(int64_t channels, int64_t rank) {
  std::vector<int64_t> shape(1 + rank, 1);
  shape[0] = channels;
  gamma_ = register_parameter("gamma", torch::empty(shape));
  if (SkipInit::active()) return;
  torch::NoGradGuard no_grad;
  gamma_.fill_(1);
}

Tensor ChannelNormImpl::forward(const Tensor& x) {
  return channel_norm(x, gamma_, /*activation=*/false);
}

Tensor ChannelNormImpl::activated(const Tensor& x) {
  return channel_norm(x, gamma_, /*activation=*/true);
}

WanResnetImpl::WanResnetImpl(int64_t in, int64_t out)
    : norm1_(in), norm2_(out), conv1_(wan_conv(in, out)), conv2_(wan_conv(out, out)) {
  register_module("norm1", norm1_);
  register_module("conv1", conv1_);
  register_module("norm2", norm2_);
  register_module("conv2", conv2_);
  if (in != out) shortcut_ = register_module("conv_shortcut", wan_conv(in, out, 1));
}

Tensor WanResnetImpl::forward(const Tensor& x, TimeCache* cache) {
  Tensor h = conv1_->forward(norm1_->activated(x), cache);
  h = conv2_->forward(norm2_->activated(h), cache);
  return h.add_(shortcut_ ? shortcut_->forward(x) : x);
}

WanAttentionImpl::WanAttentionImpl(int64_t channels)
    : norm_(channels, 2), to_qkv_(channels, 3 * channels, 1), proj_(channels, channels, 1) {
  register_module("norm", norm_);
  register_module("to_qkv", to_qkv_);
  register_module("proj", proj_);
}

Tensor WanAttentionImpl::forward(const Tensor& x) {
  auto [B, T, H, W, C] = dims<5>(x);
  const Tensor qkv = to_qkv_->forward(norm_->forward(x)).view({B * T, 1, H * W, 3 * C});
  const Tensors parts = qkv.chunk(3, -1);
  const Tensor y = torch::scaled_dot_product_attention(parts[0], parts[1], parts[2]);
  return proj_->forward(y.reshape({B, T, H, W, C})).add_(x);
}

WanMidBlockImpl::WanMidBlockImpl(int64_t channels)
    : first_(channels, channels), last_(channels, channels), attention_(channels) {
  register_module("attentions", torch::nn::ModuleList(attention_));
  register_module("resnets", torch::nn::ModuleList(first_, last_));
}

Tensor WanMidBlockImpl::forward(const Tensor& x, TimeCache* cache) {
  return last_->forward(attention_->forward(first_->forward(x, cache)), cache);
}

WanDownsampleImpl::WanDownsampleImpl(int64_t channels, bool time)
    : resample_(channels, channels, 3, /*stride=*/2) {
  register_resample(*this, resample_);
  if (time) time_conv_ = register_module("time_conv", wan_time_conv(channels, channels, 2, 0));
}

Tensor WanDownsampleImpl::forward(const Tensor& x, TimeCache* cache) {
  // One row and column of zeros below and to the right.
  const Tensor h = resample_->forward(torch::constant_pad_nd(x, {0, 0, 0, 1, 0, 1}));
  // The first frame is not halved with others: a single one leaves the layer out, and its weights
  // without a gradient, as the class does.
  if (!time_conv_ || (!cache && h.size(1) == 1)) return h;
  const Tensor rest = time_conv_->forward(h, cache);
  return starts_clip(cache) ? torch::cat({h.narrow(1, 0, 1), rest}, 1) : rest;
}

WanUpsampleImpl::WanUpsampleImpl(int64_t channels, int64_t out, bool time)
    : resample_(channels, out, 3, /*stride=*/1, /*pad=*/1) {
  register_resample(*this, resample_);
  if (time) time_conv_ = register_module("time_conv", wan_time_conv(channels, 2 * channels, 1, 2));
}

Tensor WanUpsampleImpl::forward(const Tensor& x, TimeCache* cache) {
  Tensor h = x;
  const int64_t head = starts_clip(cache) ? 1 : 0;
  if (time_conv_ && x.size(1) > head) {
    Tensor rest = time_conv_->forward(x.narrow(1, head, x.size(1) - head), cache);
    rest = rest.unflatten(-1, {2, -1}).permute({0, 1, 4, 2, 3, 5}).flatten(1, 2);
    h = head ? torch::cat({x.narrow(1, 0, 1), rest}, 1) : rest;
  }
  return resample_->forward(double_space(h));
}

Tensor average_down(const Tensor& x, int64_t out, int64_t ft, int64_t fs) {
  const int64_t missing = (ft - x.size(1) % ft) % ft;
  const Tensor whole = missing ? torch::constant_pad_nd(x, {0, 0, 0, 0, 0, 0, missing, 0}) : x;
  auto [B, T, H, W, C] = dims<5>(whole);
  const Tensor blocks = whole.reshape({B, T / ft, ft, H / fs, fs, W / fs, fs, C});
  return blocks.permute({0, 1, 3, 5, 7, 2, 4, 6})
      .reshape({B, T / ft, H / fs, W / fs, out, C * ft * fs * fs / out})
      .mean(-1);
}

Tensor duplicate_up(const Tensor& x, int64_t out, int64_t ft, int64_t fs, bool first_chunk) {
  auto [B, T, H, W, C] = dims<5>(x);
  const Tensor wide = x.repeat_interleave(out * ft * fs * fs / C, -1);
  const Tensor y = wide.view({B, T, H, W, out, ft, fs, fs})
                       .permute({0, 1, 5, 2, 6, 3, 7, 4})
                       .reshape({B, T * ft, H * fs, W * fs, out});
  return first_chunk ? y.narrow(1, ft - 1, y.size(1) - ft + 1) : y;
}

}  // namespace cosmos::modules
