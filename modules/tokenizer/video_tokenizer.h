#pragma once

// What AutoencoderKLWan and AutoencoderKLCosmos share: clips to latents and back, whole, in a
// stream, or tile by tile.

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "modules/core/model.h"
#include "modules/tokenizer/time_cache.h"

namespace cosmos::modules {

/// What the encoder says about the latents of a clip.
struct Posterior {
  Tensor mean;  ///< [B, z, t, h, w]
  Tensor
      logvar;  ///< same shape, within [-30, 20]; undefined where the class gives a point (Cosmos)

  bool quantized = false;  ///< mean holds codes of a discrete tokenizer

  Tensor mode() const { return mean; }
  /// mean + exp(logvar / 2) noise; the mean where there is no distribution. noise: as mean.
  Tensor sample(const Tensor& noise) const;
  /// KL divergence to N(0, 1), mean over elements: (mean² + exp(logvar) - 1 - logvar) / 2.
  /// Without a distribution, that of unit variance: mean² / 2; of codes, which are bounded, 0.
  Tensor kl() const;
};

/// Statistics that bring latents to mean 0 and variance 1, as config.json holds them.
struct LatentStats {
  std::optional<std::vector<double>> mean;  ///< z values, or z x frames values (channel-major)
  std::optional<std::vector<double>> std;
  double scaling_factor = 1;  ///< used where mean and std are absent
};

/// Spatial tiles with blended overlap, in pixels of the video (diffusers: tile_sample_min_*,
/// tile_sample_stride_*). Frames no larger than a tile are not tiled.
struct Tiling {
  int64_t tile_height = 256, tile_width = 256;
  int64_t stride_height = 192, stride_width = 192;
};

/// A module called through Model::run_block: (name, module, x, fn) -> fn(x).
using BlockCall = std::function<Tensor(const std::string&, torch::nn::Module&, const Tensor&,
                                       const std::function<Tensor(const Tensor&)>&)>;

class VideoTokenizer : public Model {
 public:
  /// video: [B, C, T, H, W] in [-1, 1], T = 1 + k temporal_compression, H and W multiples of
  /// spatial_compression. While gradients are recorded, or for short clips, in one go; otherwise
  /// chunk by chunk, with the same result up to rounding and memory that does not grow with T; with
  /// tiling, tile by tile.
  /// Throws Error on other shapes.
  Posterior encode(const Tensor& video);
  /// latents: [B, z, t, h, w] -> [B, C, T, H, W], clamped as the HF class does (Wan: to [-1, 1]).
  Tensor decode(const Tensor& latents);
  /// decode without the clamp, which has no gradient outside [-1, 1]: for training.
  Tensor decode_unclamped(const Tensor& latents);

  virtual int64_t video_channels() const = 0;
  virtual int64_t latent_channels() const = 0;
  virtual int64_t temporal_compression() const = 0;
  virtual int64_t spatial_compression() const = 0;
  int64_t latent_frames(int64_t frames) const { return 1 + (frames - 1) / temporal_compression(); }
  int64_t video_frames(int64_t latent_frames) const {
    return 1 + (latent_frames - 1) * temporal_compression();
  }

  /// Throws Error unless clips of this length (size, in pixels) can be encoded; `where` names what
  /// asked for it.
  void require_frames(int64_t frames, const std::string& where) const;
  void require_size(int64_t height, int64_t width, const std::string& where) const;

  /// Levels of each latent channel where latents are codes (fsq_codes.h); none where they are
  /// continuous.
  virtual const std::vector<int64_t>& code_levels() const;
  /// Whether the class is one of images: `run` then takes and gives [B, C, H, W] too.
  virtual bool is_image_tokenizer() const { return false; }

  virtual const LatentStats& latent_stats() const = 0;
  virtual void set_latent_stats(LatentStats stats) = 0;
  /// (z - mean) / std per channel (and per latent frame where the statistics say so; frames beyond
  /// the last use the last), or z scaling_factor. latents: [B, z, t, h, w]; `first_frame` is the
  /// clip's latent frame that latents start with.
  Tensor normalize_latents(const Tensor& latents, int64_t first_frame = 0) const;
  /// Inverse of normalize_latents.
  Tensor denormalize_latents(const Tensor& latents, int64_t first_frame = 0) const;

  /// Off by default. Throws Error when tile or stride is not a multiple of spatial_compression.
  void set_tiling(std::optional<Tiling> tiling);
  const std::optional<Tiling>& tiling() const { return tiling_; }
  /// Latent frames of a long clip of this size (pixels) that one step works on; one where tiled.
  int64_t latent_frames_per_step(int64_t height, int64_t width) const;
  /// Takes the place of that choice, whatever the size; none: gives it back.
  void set_latent_frames_per_step(std::optional<int64_t> frames) { frames_per_step_ = frames; }

  /// "encode": sample -> latent (the mode), and `indices` of a discrete tokenizer. "decode":
  /// latent (or sample, or z, or indices) -> sample.
  /// "forward": sample -> sample through the mode. "posterior": sample -> mean, and logvar where
  /// there is one.
  TensorMap run(const std::string& method, const TensorMap& inputs) override;

 protected:
  friend class EncoderStream;
  friend class DecoderStream;

  /// Encoder with everything after it, [B, C, T, H, W] -> moments [B, z or 2 z, t, h, w]. Without a
  /// cache the clip is whole.
  virtual Tensor encode_chunk(const Tensor& video, TimeCache* cache) = 0;
  /// [B, z, t, h, w] -> [B, C, T, H, W].
  virtual Tensor decode_chunk(const Tensor& latents, TimeCache* cache) = 0;
  /// moments -> mean and log-variance.
  virtual Posterior posterior(const Tensor& moments) const = 0;
  virtual Tensor clamp_video(const Tensor& video) const { return video; }

  BlockCall block_call();

 private:
  enum class Direction { kEncode, kDecode };
  /// (tile, its index, number of tiles) -> the other side's tile.
  using TileCall = std::function<Tensor(const Tensor&, int64_t, int64_t)>;
  Tensor run_chunk(Direction direction, const Tensor& x, TimeCache* cache);
  Tensor run_tiles(Direction direction, const Tensor& x, const TileCall& fn);
  Tensor run_clip(Direction direction, const Tensor& x);
  Tensor run_stream(Direction direction, const Tensor& x, std::vector<TimeCache>& caches);
  TensorMap run_video(const std::string& method, const TensorMap& inputs);
  void check_video(const Tensor& video) const;
  void check_latents(const Tensor& latents) const;

  std::optional<Tiling> tiling_;
  std::optional<int64_t> frames_per_step_;
};

/// Encodes a clip of any length piece by piece:
///   EncoderStream stream(tokenizer);
///   while (reader.next(frames)) latents.push_back(stream.push(frames).mode());
///   stream.finish();
/// Run it under NoGradGuard. The tokenizer must outlive it.
class EncoderStream {
 public:
  explicit EncoderStream(VideoTokenizer& tokenizer) : tokenizer_(tokenizer) {}

  /// frames: [B, C, n, H, W], any n >= 1. Returns the latents that are complete: of 1 + k c frames
  /// at the start, then k c (c = temporal_compression); mean is undefined while there are none.
  Posterior push(const Tensor& frames);
  /// Throws Error when frames are left that make no latent frame.
  void finish() const;
  /// Bytes kept between chunks.
  int64_t bytes() const;

 private:
  VideoTokenizer& tokenizer_;
  std::vector<TimeCache> caches_;  // one a tile
  Tensor rest_;                    // frames that wait for more
};

/// Decodes a clip latent frame by latent frame; see EncoderStream.
class DecoderStream {
 public:
  explicit DecoderStream(VideoTokenizer& tokenizer) : tokenizer_(tokenizer) {}

  /// latents: [B, z, n, h, w] -> [B, C, T, H, W], T = 1 + (n - 1) c at the start, then n c.
  Tensor push(const Tensor& latents);
  int64_t bytes() const;

 private:
  friend class VideoTokenizer;
  Tensor push_unclamped(const Tensor& latents);

  VideoTokenizer& tokenizer_;
  std::vector<TimeCache> caches_;
};

}  // namespace cosmos::modules
