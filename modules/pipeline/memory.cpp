#include "modules/pipeline/memory.h"

#include <algorithm>
#include <functional>
#include <map>

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

FrameSource black(int64_t views, int64_t height, int64_t width) {
  return [=](int64_t, int64_t count) { return torch::zeros({views, 1, count, height, width}); };
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
    request.video = torch::zeros({request.video.size(0), 3, request.video.size(2), height, width});
  const int64_t views = request.views.defined() ? request.views.size(0) : 1;
  for (auto& [name, control] : request.controls) {
    control.frames = black(views, height, width);
    if (control.mask) control.mask = black(views, height, width);
  }
  return request;
}

// The parts of a generation that tiles change, and the one that they do not.
enum Part { kEncode, kSteps, kDecode };
// The most bytes at once while a block runs, or from its end to the next one's begin. Each grows
// with the area for itself; the most of a whole generation does not: small pictures take it where
// weights come in, large ones where a layer is wide.
using Laps = std::map<std::pair<Part, std::string>, double>;

// Begins a lap before and after each block.
using BeginLap = std::function<void(const std::string& name)>;

class LapRunner : public BlockRunner {
 public:
  LapRunner(std::shared_ptr<BlockRunner> inner, BeginLap begin)
      : inner_(std::move(inner)), begin_(std::move(begin)) {}
  Tensors run(const std::string& name, torch::nn::Module& block, const Tensors& inputs,
              const BlockFn& fn) override {
    begin_(name);
    Tensors outputs = inner_ ? inner_->run(name, block, inputs, fn) : fn(inputs);
    begin_("after " + name);
    return outputs;
  }

 private:
  std::shared_ptr<BlockRunner> inner_;
  BeginLap begin_;
};

// Models with a LapRunner around their own runner, which comes back whatever happens.
class WithLaps {
 public:
  WithLaps(const std::vector<Model*>& models, const BeginLap& begin) {
    for (Model* model : models) {
      own_.emplace_back(model, model->block_runner());
      model->set_block_runner(std::make_shared<LapRunner>(model->block_runner(), begin));
    }
  }
  ~WithLaps() {
    for (const auto& [model, runner] : own_) model->set_block_runner(runner);
  }
  WithLaps(const WithLaps&) = delete;
  WithLaps& operator=(const WithLaps&) = delete;

 private:
  std::vector<std::pair<Model*, std::shared_ptr<BlockRunner>>> own_;
};

Laps measure(WorldPipeline& pipeline, WorldRequest request) {
  PeakLaps meter(pipeline.transformer->parameters().front().device());
  Laps laps;
  Part part = kEncode;
  std::string name;
  const auto begin = [&](const std::string& next) {
    double& most = laps[{part, name}];
    most = std::max(most, static_cast<double>(meter.lap()));
    name = next;
  };
  std::vector<Model*> models = {pipeline.transformer.get(), pipeline.vae.get()};
  for (const auto& [name, net] : pipeline.control_nets) models.push_back(net.get());
  const WithLaps with_laps(models, begin);
  request.progress = [&](int64_t done, int64_t all) {
    begin(name);
    part = done < all ? kSteps : kDecode;
  };
  generate_world(pipeline, request, [](const World&) {});
  begin("");
  return laps;
}

// Laps of a small size, and what each pixel more adds.
struct Growth {
  double area = 0;
  Laps laps, slope;

  Laps at(double wanted) const {
    Laps result = laps;
    for (auto& [key, peak] : result) peak += slope.at(key) * (wanted - area);
    return result;
  }
};

Growth measure_growth(WorldPipeline& pipeline, const WorldRequest& request, int64_t height,
                      int64_t narrow, int64_t wide) {
  Growth growth{.area = static_cast<double>(height * wide)};
  Laps less = measure(pipeline, at_size(request, height, narrow));
  growth.laps = measure(pipeline, at_size(request, height, wide));
  const auto added = static_cast<double>(height * (wide - narrow));
  for (const auto& [key, peak] : growth.laps)
    growth.slope[key] = added > 0 ? std::max(0.0, (peak - less[key]) / added) : 0;
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
  Laps laps = whole.at(area);
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
    const Laps one = whole.at(tile);
    for (auto& [key, most] : laps) {
      const auto rest = tiled.slope.find(key);
      if (key.first == kSteps || rest == tiled.slope.end()) continue;
      most = one.at(key) + rest->second * (area - tile);
    }
  }
  for (const auto& [key, most] : laps)
    peak.activations = std::max(peak.activations, static_cast<int64_t>(most));
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
