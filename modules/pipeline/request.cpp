// A request completed and checked against the models that are to serve it.

#include <algorithm>

#include "modules/diffusion/scheduler_config.h"
#include "modules/dit/action_transformer.h"
#include "modules/pipeline/views.h"
#include "modules/pipeline/world.h"

namespace cosmos::modules {
namespace {

void check_size(int64_t size, int64_t multiple, const char* name) {
  require(size > 0 && size % multiple == 0, name, ": expected a multiple of ", multiple, ", got ",
          size, " (nearest: ", std::max<int64_t>(1, (size + multiple / 2) / multiple) * multiple,
          ")");
}

void check_frames(int64_t frames, int64_t time, const char* name) {
  require(frames > 0 && (frames - 1) % time == 0, name, ": expected 1 + a multiple of ", time,
          ", got ", frames, " (nearest below: ", std::max<int64_t>(0, frames - 1) / time * time + 1,
          ")");
}

// Latent frames that RoPE has positions for.
int64_t longest(const DitConfig& config) {
  int64_t positions = 0;
  for (int axis = 0; axis < 3; ++axis)
    positions = std::max(positions, config.max_size[axis] / config.patch_size[axis]);
  return positions * config.patch_size[0];
}

int64_t shortest_control(const WorldRequest& request) {
  int64_t frames = request.controls.begin()->second.length;
  for (const auto& [name, control] : request.controls) frames = std::min(frames, control.length);
  return frames;
}

// Chunk of the released robot/action-cond weights.
constexpr int64_t kReleasedRobotFrames = 13;

void choose_robot_frames(const ActionConfig& config, int64_t whole, WorldRequest& request) {
  require(request.actions.defined(),
          "actions: the transformer is told a robot's actions, and none ", "are given");
  const bool fits = request.actions.dim() == 2 && request.actions.size(0) > 0 &&
                    request.actions.size(1) == config.action_dim;
  require(fits, "actions: expected [actions, ", config.action_dim, "], got ",
          request.actions.sizes());
  const int64_t most = request.actions.size(0) + 1;
  if (!request.num_frames) request.num_frames = most;
  require(*request.num_frames >= 1 && *request.num_frames <= most, "num-frames: expected 1 to ",
          most, " (one more than there are actions), got ", *request.num_frames);
  if (!request.chunk_frames) request.chunk_frames = whole;
  require(config.per_latent_frame || *request.chunk_frames == whole,
          "chunk-frames: the model reads ", config.num_actions, " actions at once: expected ",
          whole, ", got ", *request.chunk_frames);
}

// One chunk of the length that the model knows.
void choose_view_frames(const WorldFamily& family, WorldRequest& request) {
  if (!request.num_frames) request.num_frames = family.frames;
  require(*request.num_frames == family.frames, "num-frames: the model makes views of ",
          family.frames, " frames (state_t), got ", *request.num_frames);
  require(request.chunk_frames.value_or(family.frames) == family.frames,
          "chunk-frames: views are made at once, ", family.frames, " frames each, got ",
          request.chunk_frames.value_or(0));
  request.chunk_frames = family.frames;
  request.overlap_frames = 0;
}

void choose_views(const CosmosMultiViewTransformer3DModel* model, WorldRequest& request) {
  if (model == nullptr) {
    require(!request.views.defined(), "views: the transformer has one view; cameras are for a ",
            "CosmosMultiViewTransformer3DModel");
    return;
  }
  const int64_t most = model->view_config().n_cameras_emb;
  if (!request.views.defined())
    request.views = torch::arange(request.video.defined() ? request.video.size(0) : most);
  const Tensor& views = request.views;
  require(views.dim() == 1 && views.size(0) >= 1 && views.size(0) <= most &&
              views.min().item<int64_t>() >= 0 && views.max().item<int64_t>() < most,
          "views: expected 1 to ", most, " cameras from 0 to ", most - 1, ", got ", views.size(0),
          views.numel() > 0 ? " with " : "",
          views.numel() > 0 ? std::to_string(views.max().item<int64_t>()) : "");
  require(!request.video.defined() || request.video.size(0) == views.size(0), "video: expected ",
          views.size(0), " views, [views, 3, n, H, W], got ", request.video.sizes());
  require(!request.actions.defined(), "views: a multi-view model takes no actions");
}

void choose_frames(const WorldPipeline& pipeline, const WorldFamily& family,
                   WorldRequest& request) {
  const VideoTokenizer& vae = *pipeline.vae;
  if (request.views.defined()) return choose_view_frames(family, request);
  int64_t whole = family.frames;
  if (request.latents.defined() && request.latents.dim() == 5)
    whole = vae.video_frames(request.latents.size(2));
  whole = std::min(whole, vae.video_frames(longest(pipeline.transformer->config())));
  const auto* robot = dynamic_cast<const CosmosActionTransformer3DModel*>(&*pipeline.transformer);
  if (robot) {
    whole = robot->action_config().per_latent_frame ? std::min(whole, kReleasedRobotFrames)
                                                    : robot->action_config().num_actions + 1;
    choose_robot_frames(robot->action_config(), whole, request);
  } else if (request.controls.empty()) {
    if (!request.num_frames) request.num_frames = whole;
    if (!request.chunk_frames) request.chunk_frames = std::min(*request.num_frames, whole);
    if (*request.num_frames <= *request.chunk_frames) {
      check_frames(*request.num_frames, vae.temporal_compression(), "num-frames");
      request.chunk_frames = request.num_frames;
    }
  } else {
    const int64_t most = shortest_control(request);
    require(most > 0, "controls: a control video has no frames");
    request.num_frames = std::min(request.num_frames.value_or(most), most);
    require(*request.num_frames > 0, "num-frames: expected a positive number, got ",
            *request.num_frames);
    if (!request.chunk_frames) request.chunk_frames = whole;
  }
  check_frames(*request.chunk_frames, vae.temporal_compression(), "chunk-frames");
  if (*request.num_frames <= *request.chunk_frames) request.overlap_frames = 0;  // one chunk
  require(request.overlap_frames >= 0 && request.overlap_frames < *request.chunk_frames,
          "overlap: expected 0 to ", *request.chunk_frames - 1, " frames, got ",
          request.overlap_frames);
}

void choose_given(const WorldPipeline& pipeline, const WorldFamily& family, WorldRequest& request) {
  if (!request.video.defined()) {
    require(!family.needs_frames, family.class_name,
            " starts from a picture or a video, and none is given");
    request.condition_frames = 0;
    return;
  }
  require(family.takes_frames, family.class_name, " starts from text alone, but frames are given");
  const int64_t n = dims<5>(request.video, "video")[2];
  const VideoTokenizer& vae = *pipeline.vae;
  const bool flow = family.formulation == Formulation::kRectifiedFlow;
  if (!flow && n > *request.chunk_frames)
    request.video = request.video.slice(2, n - *request.chunk_frames);
  if (!request.condition_frames)
    request.condition_frames = flow ? 1 : vae.latent_frames(request.video.size(2));
  const int64_t given = *request.condition_frames, whole = vae.latent_frames(*request.chunk_frames);
  require(given >= 1 && (!flow || given <= 2), "condition-frames: expected 1 or 2, got ", given);
  require(given <= whole, "condition-frames: ", given,
          " latent frames are given, but the whole clip has ", whole);
  const int64_t frames = vae.video_frames(given);
  require(n >= frames, "video: ", given, " given latent frames need ", frames,
          " frames, the video has ", n);
  if (flow) request.video = request.video.slice(2, n - frames);
}

void check_controls(const WorldPipeline& pipeline, const WorldFamily& family,
                    const WorldRequest& request) {
  if (request.controls.empty()) {
    require(!family.takes_control || !pipeline.control_nets.empty(), family.class_name,
            ": the pipeline has no control net (its controlnet component is null)");
    require(!family.takes_control, family.class_name, " needs a control video, and none is given");
    return;
  }
  require(family.takes_control, family.class_name, " takes no control videos");
  const auto& nets = pipeline.control_nets;
  const bool nameless = nets.size() == 1 && nets.begin()->first.empty();
  require(!nameless || request.controls.size() == 1, "controls: ", request.controls.size(),
          " controls, but the pipeline has one control net; give each its own (controlnet/NAME/)");
  std::string names;
  for (const auto& [name, net] : nets) names += (names.empty() ? "" : ", ") + name;
  for (const auto& [name, control] : request.controls)
    require(nameless || (name.empty() && nets.size() == 1) || nets.count(name),
            "controls: no control net for \"", name, "\" (the pipeline has ", names, ")");
}

}  // namespace

WorldFamily settings_of(const WorldPipeline& pipeline, Compat compat) {
  WorldFamily family = world_family(pipeline.index.class_name, "model_index.json");
  if (compat == Compat::kNvidia) family = nvidia_settings(family);
  if (const auto* model = multi_view(*pipeline.transformer))
    family = multi_view_settings(family, pipeline.vae->video_frames(model->view_config().state_t));
  if (is_distilled(pipeline.scheduler)) {
    const bool one = is_one_step(pipeline.scheduler);
    require(family.formulation == (one ? Formulation::kEdm : Formulation::kRectifiedFlow),
            "scheduler_config.json: ", pipeline.scheduler["_class_name"].get<std::string>(),
            " is for ", one ? "Transfer1" : "Predict2.5 and Transfer2.5", ", the pipeline is a ",
            family.class_name);
    family.steps = one ? 1 : DistilledConfig{}.trained_steps;
    family.guidance = 0;
    if (!one) family.condition_time = 0.0001 / 1.0001;  // level 0.0001 as the network's time
  }
  return family;
}

WorldRequest with_defaults(const WorldPipeline& pipeline, WorldRequest request) {
  const WorldFamily family = settings_of(pipeline, request.compat);
  const auto& config = pipeline.transformer->config();
  const VideoTokenizer& vae = *pipeline.vae;
  if (!request.height) request.height = family.height;
  if (!request.width) request.width = family.width;
  if (!request.steps) request.steps = family.steps;
  if (!request.fps) request.fps = family.fps;
  if (!request.guidance) request.guidance = family.guidance;
  require(!is_distilled(pipeline.scheduler) || *request.guidance == 0,
          "guidance: a distilled model has learned it and takes none, got ", *request.guidance);
  if (!request.condition_time) request.condition_time = family.condition_time;
  check_size(*request.height, vae.spatial_compression() * config.patch_size[1], "height");
  check_size(*request.width, vae.spatial_compression() * config.patch_size[2], "width");
  require(vae.latent_channels() == config.out_channels, "pipeline: the tokenizer makes ",
          vae.latent_channels(), " channels, the transformer reads ", config.out_channels);
  check_controls(pipeline, family, request);
  choose_views(multi_view(*pipeline.transformer), request);
  const bool robot = pipeline.transformer->class_name() == "CosmosActionTransformer3DModel";
  require(robot || !request.actions.defined(), "actions: ", pipeline.transformer->class_name(),
          " takes none");
  if (family.picture) {
    require(request.num_frames.value_or(1) == 1, "num-frames: ", family.class_name,
            " makes one picture, got ", *request.num_frames);
    request.num_frames = request.chunk_frames = 1;
  }
  choose_frames(pipeline, family, request);
  choose_given(pipeline, family, request);
  return request;
}

}  // namespace cosmos::modules
