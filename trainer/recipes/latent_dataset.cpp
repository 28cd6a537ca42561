#include "trainer/recipes/latent_dataset.h"

#include <mutex>

#include "trainer/data/cached_dataset.h"

namespace cosmos::trainer {
namespace {

// Encodes one clip; the tokenizer is shared by threads that load ahead, one at a time.
class Encoder {
 public:
  Encoder(std::shared_ptr<modules::VideoTokenizer> tokenizer, double scale)
      : tokenizer_(std::move(tokenizer)), scale_(scale) {}

  Sample operator()(Sample sample) const {
    const torch::NoGradGuard no_grad;
    Tensors views;  // of several cameras, one after another along T
    if (const auto found = sample.tensors.find("latents"); found != sample.tensors.end()) {
      views = {found->second.to(torch::kFloat32).unsqueeze(0)};
    } else {
      views = encode(sample, "video");
    }
    if (sample.tensors.count("control")) {
      sample.tensors["control_latents"] = control_latents(sample);
      sample.tensors.erase("control");
    }
    for (Tensor& view : views)
      if (tokenizer_) view = tokenizer_->normalize_latents(view);
    const Tensor latents = torch::cat(views, 2);
    sample.tensors["latents"] = (latents * scale_).squeeze(0).contiguous();
    sample.tensors.erase("video");
    return sample;
  }

 private:
  // [k C, T', H', W'], of several cameras one after another along T'.
  Tensor control_latents(const Sample& sample) const {
    Tensors videos = encode(sample, "control");
    for (Tensor& video : videos) video = tokenizer_->normalize_latents(video).squeeze(0);
    const auto cameras = sample.tensors.find("view_indices");
    const auto views =
        static_cast<std::size_t>(cameras == sample.tensors.end() ? 1 : cameras->second.size(0));
    Tensors controls;
    for (std::size_t first = 0; first < videos.size(); first += views) {
      const auto begin = videos.begin() + static_cast<std::ptrdiff_t>(first);
      controls.push_back(torch::cat(Tensors(begin, begin + static_cast<std::ptrdiff_t>(views)), 1));
    }
    return torch::cat(controls).contiguous();
  }

  // Latents [1, C, T, H, W] of each RGB video in the tensor [3 k, T, H, W].
  Tensors encode(const Sample& sample, const char* name) const {
    const auto video = sample.tensors.find(name);
    require(video != sample.tensors.end(), "the data have neither video nor latents");
    require(tokenizer_ != nullptr,
            "recipe.tokenizer: the data are video, so a tokenizer is needed");
    const std::lock_guard lock(*mutex_);
    const auto options = tokenizer_->parameters().front().options();
    const Tensor pixels = video->second.to(torch::kFloat32).div(127.5).sub(1).unsqueeze(0);
    Tensors latents;
    for (const Tensor& video : pixels.split(3, 1))
      latents.push_back(tokenizer_->encode(video.to(options)).mode().to(torch::kFloat32).cpu());
    return latents;
  }

  std::shared_ptr<modules::VideoTokenizer> tokenizer_;
  double scale_;
  std::shared_ptr<std::mutex> mutex_ = std::make_shared<std::mutex>();
};

// Samples that go through the encoder every time, because their windows change.
class EncodedDataset : public Dataset {
 public:
  EncodedDataset(std::shared_ptr<Dataset> clips, Encoder encoder)
      : clips_(std::move(clips)), encoder_(std::move(encoder)) {}

  int64_t size() const override { return clips_->size(); }
  int64_t bucket(int64_t item) const override { return clips_->bucket(item); }
  Sample get(int64_t item, uint64_t seed, int64_t sample_index) override {
    return encoder_(clips_->get(item, seed, sample_index));
  }
  std::string item_name(int64_t item) const override { return clips_->item_name(item); }
  std::vector<std::pair<std::string, std::string>> left_out() const override {
    return clips_->left_out();
  }

 private:
  std::shared_ptr<Dataset> clips_;
  Encoder encoder_;
};

// An item is the same window whatever the sample index.
bool is_fixed(const Json& settings) {
  const auto is = [&](const char* key, const Json& value) {
    return settings.contains(key) && settings[key] == value;
  };
  return is("windows", "all") && !is("horizontal_flip", true);
}

}  // namespace

std::shared_ptr<Dataset> latent_dataset(std::shared_ptr<Dataset> clips,
                                        std::shared_ptr<modules::VideoTokenizer> tokenizer,
                                        const Json& settings, const LatentOptions& options,
                                        const std::string& where) {
  Encoder encoder(std::move(tokenizer), options.scale);
  const bool fixed = is_fixed(settings);
  if (options.cache == "none" || (options.cache == "auto" && !fixed))
    return std::make_shared<EncodedDataset>(std::move(clips), std::move(encoder));
  require(fixed, where,
          ".latent_cache: latents can be kept only when every item is one window: set ",
          "data.windows to all and data.horizontal_flip to false");
  CacheOptions cache{.folder = options.cache == "auto" ? "" : options.cache,
                     .fingerprint = options.fingerprint};
  return std::make_shared<CachedDataset>(std::move(clips), std::move(encoder), std::move(cache));
}

}  // namespace cosmos::trainer
