#include "modules/pipeline/memory.h"

#include <algorithm>
#include <array>

#include "modules/hub/weight_folder.h"
#include "ops/core/peak_memory.h"

namespace cosmos::modules {
namespace {

// What is there: an offloaded parameter has next to nothing.
int64_t bytes_of(const torch::nn::Module& model) {
  int64_t bytes = 0;
  const auto add = [&](const Tensor& tensor) {
    bytes += static_cast<int64_t>(std::min(tensor.nbytes(), tensor.storage().nbytes()));
  };
  for (const Tensor& tensor : model.parameters()) add(tensor);
  for (const Tensor& tensor : model.buffers()) add(tensor);
  return bytes;
}

FrameSource black(int64_t height, int64_t width) {
  return [=](int64_t, int64_t count) { return torch::zeros({1, 1, count, height, width}); };
}

// One chunk of the request at another size, of black frames.
WorldRequest at_size(WorldRequest request, int64_t height, int64_t width) {
  request.height = height;
  request.width = width;
  request.num_frames = std::min(*request.num_frames, *request.chunk_frames);
  request.steps = std::min<int64_t>(*request.steps, 2);
  request.latents = Tensor();
  request.progress = nullptr;
  if (request.video.defined())
    request.video = torch::zeros({1, 3, request.video.size(2), height, width});
  for (auto& [name, control] : request.controls) {
    control.frames = black(height, width);
    if (control.mask) control.mask = black(height, width);
  }
  return request;
}

// The most bytes at once: until the first step is done (pixels encoded, texts read), in the steps
// after it, and until the clip is decoded. Each grows with the area for itself.
using Phases = std::array<double, 3>;

Phases measure(WorldPipeline& pipeline, WorldRequest request) {
  PeakLaps laps(pipeline.transformer->parameters().front().device());
  Phases peaks{};
  request.progress = [&](int64_t done, int64_t) {
    auto& peak = peaks[done == 1 ? 0 : 1];
    peak = std::max(peak, static_cast<double>(laps.lap()));
  };
  generate_world(pipeline, request, [](const World&) {});
  peaks[2] = static_cast<double>(laps.lap());
  return peaks;
}

// Peaks of a small size, and what each pixel more adds.
struct Growth {
  double area = 0;
  Phases peak{}, slope{};

  Phases at(double wanted) const {
    Phases result{};
    for (std::size_t i = 0; i < result.size(); ++i)
      result[i] = peak[i] + slope[i] * (wanted - area);
    return result;
  }
};

Growth measure_growth(WorldPipeline& pipeline, const WorldRequest& request, int64_t height,
                      int64_t narrow, int64_t wide) {
  Growth growth{.area = static_cast<double>(height * wide)};
  const Phases less = measure(pipeline, at_size(request, height, narrow));
  growth.peak = measure(pipeline, at_size(request, height, wide));
  const auto added = static_cast<double>(height * (wide - narrow));
  for (std::size_t i = 0; i < growth.slope.size(); ++i)
    growth.slope[i] = added > 0 ? std::max(0.0, (growth.peak[i] - less[i]) / added) : 0;
  return growth;
}

// Settings of the tokenizer as they were, whatever happens.
class KeepTokenizer {
 public:
  explicit KeepTokenizer(VideoTokenizer& vae) : vae_(vae), tiling_(vae.tiling()) {}
  ~KeepTokenizer() {
    vae_.set_tiling(tiling_);
    vae_.set_latent_frames_per_step(std::nullopt);
  }
  KeepTokenizer(const KeepTokenizer&) = delete;
  KeepTokenizer& operator=(const KeepTokenizer&) = delete;

 private:
  VideoTokenizer& vae_;
  std::optional<Tiling> tiling_;
};

}  // namespace

PeakMemory predict_peak(WorldPipeline& pipeline, const WorldRequest& given) {
  const WorldRequest request = with_defaults(pipeline, given);
  PeakMemory peak{.weights = bytes_of(*pipeline.transformer) + bytes_of(*pipeline.vae)};
  for (const auto& [name, net] : pipeline.control_nets) peak.weights += bytes_of(*net);

  VideoTokenizer& vae = *pipeline.vae;
  const KeepTokenizer keep(vae);
  const int64_t height = *request.height, width = *request.width;
  const auto area = static_cast<double>(height * width);
  const std::optional<Tiling> tiling = vae.tiling();
  // A small picture is encoded in as many frames at once as the request's will be.
  vae.set_latent_frames_per_step(std::min(vae.latent_frames_per_step(height, width),
                                          vae.latent_frames(*request.chunk_frames)));
  vae.set_tiling(std::nullopt);
  const auto& patch = pipeline.transformer->config().patch_size;
  const int64_t rows = vae.spatial_compression() * patch[1],
                columns = vae.spatial_compression() * patch[2];
  const Growth whole = measure_growth(pipeline, request, std::min(height, 2 * rows),
                                      std::min(width, 2 * columns), std::min(width, 4 * columns));
  Phases phases = whole.at(area);
  if (tiling && (height > tiling->tile_height || width > tiling->tile_width)) {
    // One tile is worked on at a time; what grows with the picture is what stays of the others:
    // seen with small tiles.
    const auto tile = static_cast<double>(std::min(height, tiling->tile_height) *
                                          std::min(width, tiling->tile_width));
    vae.set_tiling(Tiling{.tile_height = 4 * rows,
                          .tile_width = 4 * columns,
                          .stride_height = 3 * rows,
                          .stride_width = 3 * columns});
    const Growth tiled = measure_growth(pipeline, request, 7 * rows, 7 * columns, 10 * columns);
    const Phases one = whole.at(tile);
    for (const std::size_t i : {0, 2}) phases[i] = one[i] + tiled.slope[i] * (area - tile);
  }
  peak.activations = static_cast<int64_t>(*std::max_element(phases.begin(), phases.end()));
  return peak;
}

int64_t weights_in(const std::filesystem::path& component, torch::Dtype dtype) {
  const WeightFolder weights(component);
  int64_t bytes = 0;
  for (const std::string& name : weights.names())
    bytes += c10::multiply_integers(weights.info(name).shape) *
             static_cast<int64_t>(c10::elementSize(dtype));
  return bytes;
}

}  // namespace cosmos::modules
