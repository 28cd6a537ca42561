#include "modules/pipeline/control.h"

#include <algorithm>

namespace cosmos::modules {
namespace {

/// Index of frame `i` in a video of `length` that goes on forever.
int64_t continued(int64_t i, int64_t length, Continue how) {
  if (i < length) return i;
  if (how == Continue::kLastFrame || length == 1) return length - 1;
  const int64_t period = 2 * (length - 1), place = i % period;
  return place < length ? place : period - place;
}

/// [1, 1, T, H, W] -> [1, 1, t, h, w]
Tensor resize(const Tensor& x, int64_t t, int64_t h, int64_t w) {
  return torch::upsample_trilinear3d(x, {t, h, w}, /*align_corners=*/false);
}

Tensor zeros_context(const DitConfig& config, int64_t batch) {
  return torch::zeros({batch, config.img_context_num_tokens, *config.img_context_dim_in});
}

/// A branch's residuals in the inputs' dtype; the net may run in another than the base.
Tensors branch_hints(const ControlBranch& branch, ControlNetInputs inputs) {
  const auto base = inputs.latents.options(), own = branch.net->parameters().front().options();
  inputs.controls_latents = branch.latents.to(own);
  for (Tensor* tensor : {&inputs.latents, &inputs.encoder_hidden_states, &inputs.img_context,
                         &inputs.condition_mask})
    if (tensor->defined()) *tensor = tensor->to(own);
  if (!branch.net->config().has_image_context()) inputs.img_context = Tensor();
  Tensors hints = branch.net->forward(inputs);
  for (Tensor& hint : hints) hint = hint.to(base);
  return hints;
}

}  // namespace

FrameSource frames_of(Tensor video) {
  return [video = std::move(video)](int64_t first, int64_t count) {
    return video.narrow(2, first, count);
  };
}

Tensor frames_beyond(const FrameSource& source, int64_t length, int64_t first, int64_t count,
                     Continue how) {
  if (first + count <= length) return source(first, count);
  std::vector<int64_t> index(count);
  for (int64_t i = 0; i < count; ++i) index[i] = continued(first + i, length, how);
  const auto [low, high] = std::minmax_element(index.begin(), index.end());
  const int64_t begin = *low;
  const Tensor frames = source(begin, *high - begin + 1);
  for (int64_t& i : index) i -= begin;
  return frames.index_select(2, torch::tensor(index).to(frames.device()));
}

Tensor token_map(const Tensor& mask, const PatchGrid& grid) {
  const auto [B, C, T, H, W] = dims<5>(mask, "control mask");
  require(B == 1 && C == 1, "control mask: expected [1, 1, T, H, W], got ", mask.sizes());
  const Tensor x = mask.to(torch::kFloat32);
  Tensor map = resize(x.narrow(2, 0, 1), 1, grid.rows, grid.columns);
  if (grid.frames > 1)
    map = torch::cat({map, resize(x.narrow(2, 1, T - 1), grid.frames - 1, grid.rows, grid.columns)},
                     2);
  return map.reshape({1, grid.tokens(), 1});
}

void normalize_weights(std::vector<ControlBranch>& branches, bool numbers_too) {
  const bool maps = std::any_of(branches.begin(), branches.end(),
                                [](const ControlBranch& b) { return b.map.defined(); });
  if (branches.empty() || (!maps && !numbers_too)) return;
  Tensor sum;
  for (ControlBranch& branch : branches) {
    if (!branch.map.defined()) branch.map = torch::full({1, 1, 1}, branch.weight);
    sum = sum.defined() ? sum + branch.map : branch.map;
  }
  const Tensor divisor = sum.clamp_min(1);
  for (ControlBranch& branch : branches) branch.map = branch.map / divisor;
}

Tensors control_residuals(const std::vector<ControlBranch>& branches,
                          const ControlNetInputs& inputs) {
  Tensors sums;
  for (const ControlBranch& branch : branches) {
    if (!branch.map.defined() && branch.weight == 0) continue;
    const Tensors hints = branch_hints(branch, inputs);
    const Tensor map = branch.map.defined() ? branch.map.to(hints.front().options()) : branch.map;
    for (std::size_t i = 0; i < hints.size(); ++i) {
      const Tensor weighted = map.defined()        ? hints[i] * map
                              : branch.weight == 1 ? hints[i]
                                                   : hints[i] * branch.weight;
      if (i < sums.size()) {
        sums[i] = sums[i] + weighted;
      } else {
        sums.push_back(weighted);
      }
    }
  }
  return sums;
}

TextCaches::Entry& TextCaches::of(const Tensor& text, const torch::TensorOptions& model) {
  for (Entry& entry : entries_)
    if (entry.text.is_same(text)) return entry;
  entries_.push_back(
      {.text = text, .embeds = text.to(model), .cache = std::make_shared<ContextCache>()});
  return entries_.back();
}

Network dit_network(CosmosTransformer3DModel& transformer, NetworkOptions options) {
  const DitConfig& config = transformer.config();
  if (config.has_image_context() && !options.img_context.defined())
    options.img_context = zeros_context(config, 1);
  return [&transformer, options](const Tensor& input, const Tensor& time, const Tensor& mask,
                                 const Tensor& text) {
    const DitConfig& config = transformer.config();
    const auto model = transformer.parameters().front().options();
    DitInputs inputs;
    inputs.hidden_states = input.to(model);
    inputs.timestep = time.to(model.device());
    if (torch::GradMode::is_enabled()) {
      inputs.encoder_hidden_states = text.to(model);
    } else {
      const TextCaches::Entry& words = options.texts->of(text, model);
      inputs.encoder_hidden_states = words.embeds;
      inputs.context_cache = words.cache;
    }
    inputs.fps = options.fps;
    if (options.action.defined()) inputs.action = options.action.to(model);
    inputs.view_indices = options.view_indices;
    if (options.img_context.defined())
      inputs.img_context = options.img_context.expand({input.size(0), -1, -1}).to(model);
    if (config.in_channels > config.out_channels) inputs.condition_mask = mask.to(model);
    Tensors& residuals = inputs.block_controlnet_hidden_states;
    if (!options.branches.empty())
      residuals = control_residuals(options.branches,
                                    {.latents = inputs.hidden_states,
                                     .timestep = inputs.timestep,
                                     .encoder_hidden_states = inputs.encoder_hidden_states,
                                     .img_context = inputs.img_context,
                                     .condition_mask = inputs.condition_mask,
                                     .conditioning_scale = options.control_scale,
                                     .context_cache = inputs.context_cache,
                                     .fps = options.fps,
                                     .view_indices = options.view_indices});
    if (!residuals.empty() && options.branches.front().net->first_blocks_only())
      residuals.resize(config.num_control_residuals());  // the other blocks get none
    return transformer.forward(inputs);
  };
}

Tensor no_text(const CosmosTransformer3DModel& transformer, int64_t batch) {
  const DitConfig& config = transformer.config();
  return torch::zeros({batch, 1,
                       config.use_crossattn_projection ? config.crossattn_proj_in_channels
                                                       : config.text_embed_dim});
}

}  // namespace cosmos::modules
