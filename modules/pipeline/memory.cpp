#include "modules/pipeline/memory.h"

#include <algorithm>

#include "ops/core/peak_memory.h"

namespace cosmos::modules {
namespace {

int64_t bytes_of(const torch::nn::Module& model) {
  int64_t bytes = 0;
  for (const Tensor& tensor : model.parameters()) bytes += static_cast<int64_t>(tensor.nbytes());
  for (const Tensor& tensor : model.buffers()) bytes += static_cast<int64_t>(tensor.nbytes());
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

}  // namespace

PeakMemory predict_peak(WorldPipeline& pipeline, const WorldRequest& given) {
  const WorldRequest request = with_defaults(pipeline, given);
  PeakMemory peak{.weights = bytes_of(*pipeline.transformer) + bytes_of(*pipeline.vae)};
  for (const auto& [name, net] : pipeline.control_nets) peak.weights += bytes_of(*net);

  const auto& patch = pipeline.transformer->config().patch_size;
  const int64_t space = pipeline.vae->spatial_compression();
  const int64_t height = std::min(*request.height, 2 * space * patch[1]);
  const int64_t widths[] = {std::min(*request.width, 2 * space * patch[2]),
                            std::min(*request.width, 4 * space * patch[2])};
  const auto device = pipeline.transformer->parameters().front().device();
  const auto measure = [&](int64_t width) {
    const WorldRequest small = at_size(request, height, width);
    return static_cast<double>(
        peak_bytes(device, [&] { generate_world(pipeline, small, [](const World&) {}); }));
  };
  const double narrow = measure(widths[0]), wide = measure(widths[1]);
  const auto area = static_cast<double>(*request.height * *request.width);
  const auto added = static_cast<double>(height * (widths[1] - widths[0]));
  const double slope = added > 0 ? std::max(0.0, (wide - narrow) / added) : 0;
  const double rest = area - static_cast<double>(height * widths[1]);
  peak.activations = static_cast<int64_t>(wide + slope * rest);
  return peak;
}

}  // namespace cosmos::modules
