#include "modules/tokenizer/video_tokenizer.h"

#include <algorithm>

#include "modules/tokenizer/fsq_codes.h"
#include "modules/tokenizer/tiles.h"

namespace cosmos::modules {
namespace {

// Pixels of video (frames x height x width) that one step of a long clip works on: 4 frames of
// 480 x 832. Wan's widest layer then takes 0.6 GB per activation in float32.
constexpr int64_t kPixelsPerStep = 4 * 480 * 832;

// One statistic for latents of `frames` frames that start at `first`: [1, z, 1 or frames, 1, 1].
Tensor stat_of(const std::vector<double>& values, const char* name, int64_t channels, int64_t first,
               const Tensor& latents) {
  const int64_t count = static_cast<int64_t>(values.size());
  require(count > 0 && count % channels == 0, name, ": expected a multiple of ", channels,
          " values (one per latent channel, or per channel and frame), got ", count);
  const int64_t known = count / channels;
  Tensor table = torch::tensor(values, torch::kFloat64).view({channels, known});
  if (known > 1) {
    const Tensor frames = torch::arange(first, first + latents.size(2)).clamp_max(known - 1);
    table = table.index_select(1, frames);
  }
  return table.view({1, channels, -1, 1, 1}).to(latents.options());
}

const Tensor& only_input(const TensorMap& inputs, const std::vector<std::string>& names) {
  for (const auto& [name, tensor] : inputs)
    require(std::find(names.begin(), names.end(), name) != names.end(), name,
            " is not an input of this method (expected ", names.front(), ")");
  require(inputs.size() == 1, "expected one input, ", names.front(), "; got ", inputs.size());
  return inputs.begin()->second;
}

}  // namespace

Tensor Posterior::sample(const Tensor& noise) const {
  return logvar.defined() ? mean + torch::exp(0.5 * logvar) * noise : mean;
}

Tensor Posterior::kl() const {
  if (quantized) return torch::zeros({}, mean.options());
  if (!logvar.defined()) return 0.5 * mean.square().mean();
  return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean();
}

BlockCall VideoTokenizer::block_call() {
  return [this](const std::string& name, torch::nn::Module& block, const Tensor& x,
                const std::function<Tensor(const Tensor&)>& fn) {
    return run_block(name, block, {x}, [&](const Tensors& in) { return Tensors{fn(in[0])}; })[0];
  };
}

void VideoTokenizer::check_video(const Tensor& video) const {
  auto [B, C, T, H, W] = dims<5>(video, "sample");
  require(C == video_channels(), "sample: expected ", video_channels(), " channels, got shape ",
          video.sizes(), " (order is batch, channel, frame, height, width)");
  require_size(H, W, "sample");
}

void VideoTokenizer::require_frames(int64_t frames, const std::string& where) const {
  const int64_t c = temporal_compression();
  require(frames >= 1 && (frames - 1) % c == 0, where, ": ", frames,
          " frames; this tokenizer takes 1 + ", c, " k frames: ", 1 + (frames - 1) / c * c, " or ",
          1 + ((frames - 1) / c + 1) * c);
}

void VideoTokenizer::require_size(int64_t height, int64_t width, const std::string& where) const {
  const int64_t s = spatial_compression();
  require(height >= s && width >= s && height % s == 0 && width % s == 0, where, ": ", height,
          " x ", width, " pixels; height and width must be multiples of ", s,
          ": crop or pad the clip");
}

void VideoTokenizer::check_latents(const Tensor& latents) const {
  auto [B, C, T, H, W] = dims<5>(latents, "latent");
  require(C == latent_channels(), "latent: expected ", latent_channels(), " channels, got shape ",
          latents.sizes());
}

int64_t VideoTokenizer::latent_frames_per_step(int64_t height, int64_t width) const {
  if (frames_per_step_) return *frames_per_step_;
  // Who asks for tiles has no memory for more than one latent frame of one.
  if (tiling_ && (height > tiling_->tile_height || width > tiling_->tile_width)) return 1;
  return std::max<int64_t>(1, kPixelsPerStep / (temporal_compression() * height * width));
}

Posterior VideoTokenizer::encode(const Tensor& video) {
  check_video(video);
  require_frames(video.size(2), "sample");
  return posterior(run_clip(Direction::kEncode, video));
}

Tensor VideoTokenizer::decode_unclamped(const Tensor& latents) {
  check_latents(latents);
  return run_clip(Direction::kDecode, latents);
}

Tensor VideoTokenizer::decode(const Tensor& latents) {
  return clamp_video(decode_unclamped(latents));
}

void VideoTokenizer::set_tiling(std::optional<Tiling> tiling) {
  if (tiling) {
    const int64_t s = spatial_compression();
    for (const auto& [name, tile, stride] :
         {std::tuple{"height", tiling->tile_height, tiling->stride_height},
          std::tuple{"width", tiling->tile_width, tiling->stride_width}})
      require(stride > 0 && stride <= tile && tile % s == 0 && stride % s == 0, "tiling: tile ",
              name, " ", tile, " with stride ", stride, "; both must be multiples of ", s,
              ", the stride no larger than the tile");
  }
  tiling_ = tiling;
}

Tensor VideoTokenizer::run_chunk(Direction direction, const Tensor& x, TimeCache* cache) {
  Tensor y = direction == Direction::kEncode ? encode_chunk(x, cache) : decode_chunk(x, cache);
  if (cache) cache->end_chunk();
  return y;
}

Tensor VideoTokenizer::run_tiles(Direction direction, const Tensor& x, const TileCall& fn) {
  if (!tiling_) return fn(x, 0, 1);
  const int64_t s = spatial_compression();
  const TileGrid pixels{{tiling_->tile_height, tiling_->tile_width},
                        {tiling_->stride_height, tiling_->stride_width}};
  const TileGrid latents{{pixels.tile[0] / s, pixels.tile[1] / s},
                         {pixels.stride[0] / s, pixels.stride[1] / s}};
  const bool encoding = direction == Direction::kEncode;
  const TileGrid &in = encoding ? pixels : latents, &out = encoding ? latents : pixels;
  if (x.size(3) <= in.tile[0] && x.size(4) <= in.tile[1]) return fn(x, 0, 1);
  const int64_t count = tile_count(in, x.size(3), x.size(4));
  return run_tiled(x, in, out,
                   [&](const Tensor& tile, int64_t index) { return fn(tile, index, count); });
}

// Each tile from beginning to end before the next: one tile's cache is held at a time.
Tensor VideoTokenizer::run_clip(Direction direction, const Tensor& x) {
  const bool encoding = direction == Direction::kEncode;
  const int64_t s = encoding ? 1 : spatial_compression(), T = x.size(2);
  const int64_t step = latent_frames_per_step(x.size(3) * s, x.size(4) * s);
  if (torch::GradMode::is_enabled() || (encoding ? latent_frames(T) : T) <= step)
    return run_tiles(direction, x, [&](const Tensor& tile, int64_t, int64_t) {
      return run_chunk(direction, tile, nullptr);
    });
  const int64_t first = encoding ? video_frames(step) : step;
  const int64_t next = encoding ? step * temporal_compression() : step;
  return run_tiles(direction, x, [&](const Tensor& tile, int64_t, int64_t) {
    TimeCache cache;
    Tensors parts;
    for (int64_t t = 0, n; t < T; t += n) {
      n = std::min(T - t, t == 0 ? first : next);
      parts.push_back(run_chunk(direction, tile.narrow(2, t, n), &cache));
    }
    return torch::cat(parts, 2);
  });
}

Tensor VideoTokenizer::run_stream(Direction direction, const Tensor& x,
                                  std::vector<TimeCache>& caches) {
  return run_tiles(direction, x, [&](const Tensor& tile, int64_t index, int64_t count) {
    if (caches.empty()) caches.resize(count);
    require(static_cast<int64_t>(caches.size()) == count,
            "stream: frame size or tiling changed in the middle of a clip");
    return run_chunk(direction, tile, &caches[index]);
  });
}

Tensor VideoTokenizer::normalize_latents(const Tensor& latents, int64_t first_frame) const {
  const LatentStats& stats = latent_stats();
  if (!stats.mean || !stats.std) return latents * stats.scaling_factor;
  const int64_t z = latent_channels();
  return (latents - stat_of(*stats.mean, "latents_mean", z, first_frame, latents)) /
         stat_of(*stats.std, "latents_std", z, first_frame, latents);
}

Tensor VideoTokenizer::denormalize_latents(const Tensor& latents, int64_t first_frame) const {
  const LatentStats& stats = latent_stats();
  if (!stats.mean || !stats.std) return latents / stats.scaling_factor;
  const int64_t z = latent_channels();
  return latents * stat_of(*stats.std, "latents_std", z, first_frame, latents) +
         stat_of(*stats.mean, "latents_mean", z, first_frame, latents);
}

const std::vector<int64_t>& VideoTokenizer::code_levels() const {
  static const std::vector<int64_t> kNone;
  return kNone;
}

TensorMap VideoTokenizer::run(const std::string& method, const TensorMap& inputs) {
  if (!is_image_tokenizer()) return run_video(method, inputs);
  // Images are clips of one frame; `indices` have no channel.
  TensorMap clips;
  bool images = false;
  for (const auto& [name, tensor] : inputs) {
    const int64_t frames = name == "indices" ? 1 : 2;
    const bool image = tensor.dim() == frames + 2;
    clips[name] = image ? tensor.unsqueeze(frames) : tensor;
    images = images || image;
  }
  TensorMap out = run_video(method, clips);
  if (images)
    for (auto& [name, tensor] : out) tensor = tensor.squeeze(name == "indices" ? 1 : 2);
  return out;
}

TensorMap VideoTokenizer::run_video(const std::string& method, const TensorMap& inputs) {
  const std::vector<int64_t>& levels = code_levels();
  if (method == "encode") {
    TensorMap out{{"latent", encode(only_input(inputs, {"sample"})).mode()}};
    if (!levels.empty()) out["indices"] = indices_of(out["latent"].detach(), levels);
    return out;
  }
  if (method == "decode" && !levels.empty() && inputs.count("indices"))
    return {{"sample", decode(codes_of(only_input(inputs, {"indices"}), levels,
                                       parameters().front().scalar_type()))}};
  if (method == "decode")
    return {{"sample", decode(only_input(inputs, {"latent", "sample", "z"}))}};
  if (method == "forward") {
    return {{"sample", decode(encode(only_input(inputs, {"sample"})).mode())}};
  }
  require(method == "posterior", class_name(), " has no method \"", method,
          "\" (known: encode, decode, forward, posterior)");
  const Posterior moments = encode(only_input(inputs, {"sample"}));
  TensorMap out{{"mean", moments.mean}};
  if (moments.logvar.defined()) out["logvar"] = moments.logvar;
  return out;
}

Posterior EncoderStream::push(const Tensor& frames) {
  tokenizer_.check_video(frames);
  const Tensor waiting = rest_.defined() ? torch::cat({rest_, frames}, 2) : frames;
  const int64_t c = tokenizer_.temporal_compression();
  const int64_t start = caches_.empty() ? 1 : 0;
  const int64_t ready = start + (waiting.size(2) - start) / c * c;
  rest_ = ready < waiting.size(2) ? waiting.narrow(2, ready, waiting.size(2) - ready).clone()
                                  : Tensor();
  if (ready == 0) return {};
  return tokenizer_.posterior(tokenizer_.run_stream(VideoTokenizer::Direction::kEncode,
                                                    waiting.narrow(2, 0, ready), caches_));
}

void EncoderStream::finish() const {
  require(!rest_.defined(), "stream: the clip ends with ", rest_.defined() ? rest_.size(2) : 0,
          " frames that make no latent frame; clips have 1 + ", tokenizer_.temporal_compression(),
          " k frames");
}

Tensor DecoderStream::push_unclamped(const Tensor& latents) {
  tokenizer_.check_latents(latents);
  return tokenizer_.run_stream(VideoTokenizer::Direction::kDecode, latents, caches_);
}

Tensor DecoderStream::push(const Tensor& latents) {
  return tokenizer_.clamp_video(push_unclamped(latents));
}

int64_t EncoderStream::bytes() const {
  int64_t total = rest_.defined() ? static_cast<int64_t>(rest_.nbytes()) : 0;
  for (const TimeCache& cache : caches_) total += cache.bytes();
  return total;
}

int64_t DecoderStream::bytes() const {
  int64_t total = 0;
  for (const TimeCache& cache : caches_) total += cache.bytes();
  return total;
}

}  // namespace cosmos::modules
