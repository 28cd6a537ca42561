#include "modules/pipeline/world.h"

#include "modules/diffusion/conditioning.h"
#include "modules/diffusion/noise.h"
#include "modules/diffusion/scheduler_config.h"
#include "modules/hub/json_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/registry.h"

namespace cosmos::modules {
namespace {

namespace fs = std::filesystem;

template <typename T>
std::shared_ptr<T> load_component(const fs::path& dir, torch::Dtype dtype, const char* expected) {
  require(fs::is_directory(dir), dir.string(), ": no such folder; a pipeline folder needs it");
  auto model = load_model(dir, {.dtype = dtype});
  auto component = std::dynamic_pointer_cast<T>(model);
  require(component != nullptr, dir.string(), ": expected ", expected, ", got ",
          model->class_name());
  component->eval();
  return component;
}

void check_size(int64_t size, int64_t multiple, const char* name) {
  require(size > 0 && size % multiple == 0, name, ": expected a multiple of ", multiple, ", got ",
          size, " (nearest: ", std::max<int64_t>(1, (size + multiple / 2) / multiple) * multiple,
          ")");
}

std::vector<int64_t> latent_shape(const WorldPipeline& pipeline, const WorldRequest& request) {
  const auto& config = pipeline.transformer->config();
  const VideoTokenizer& vae = *pipeline.vae;
  const int64_t time = vae.temporal_compression(), space = vae.spatial_compression();
  check_size(request.height, space * config.patch_size[1], "height");
  check_size(request.width, space * config.patch_size[2], "width");
  require(request.num_frames > 0 && (request.num_frames - 1) % time == 0,
          "num-frames: expected 1 + a multiple of ", time, ", got ", request.num_frames,
          " (nearest below: ", std::max<int64_t>(0, request.num_frames - 1) / time * time + 1, ")");
  require(vae.latent_channels() == config.out_channels, "pipeline: the tokenizer makes ",
          vae.latent_channels(), " channels, the transformer reads ", config.out_channels);
  return {1, config.out_channels, vae.latent_frames(request.num_frames), request.height / space,
          request.width / space};
}

Tensor initial_noise(const WorldRequest& request, at::IntArrayRef shape) {
  if (request.latents.defined()) {
    require(request.latents.sizes() == shape, "latents: expected ", shape, ", got ",
            request.latents.sizes());
    return request.latents.to(torch::kFloat32);
  }
  if (request.compat == Compat::kNvidia)
    return numpy_normal(static_cast<uint32_t>(request.seed), shape);
  return Philox(request.seed, Purpose::kSampler).normal(shape);
}

Tensor text_or_zeros(const Tensor& text, const CosmosTransformer3DModel& transformer,
                     const char* name) {
  const Tensor zeros = no_text(transformer, 1);
  if (!text.defined()) return zeros;
  require(text.dim() == 3 && text.size(0) == 1 && text.size(2) == zeros.size(2), name,
          ": expected [1, tokens, ", zeros.size(2), "], got ", text.sizes());
  return text;
}

}  // namespace

WorldPipeline load_world_pipeline(const fs::path& dir, torch::Dtype dtype) {
  const PipelineIndex index = read_pipeline_index(dir);
  WorldPipeline pipeline = load_world_components(
      dir / "transformer", dir / "vae", dir / "scheduler" / "scheduler_config.json", dtype);
  pipeline.index = index;
  return pipeline;
}

WorldPipeline load_world_components(const fs::path& transformer, const fs::path& vae,
                                    const fs::path& scheduler, torch::Dtype dtype) {
  WorldPipeline pipeline;
  pipeline.scheduler =
      scheduler.empty() ? scheduler_json(predict25_scheduler(false)) : read_json(scheduler);
  pipeline.transformer =
      load_component<CosmosTransformer3DModel>(transformer, dtype, "CosmosTransformer3DModel");
  pipeline.vae =
      load_component<VideoTokenizer>(vae, dtype, "AutoencoderKLWan or AutoencoderKLCosmos");
  pipeline.index.class_name = "Cosmos2_5_PredictBasePipeline";
  const auto scheduler_class = pipeline.scheduler.find("_class_name");
  require(scheduler_class != pipeline.scheduler.end() && scheduler_class->is_string(),
          scheduler.string(), ": _class_name is missing");
  pipeline.index.components = {{"transformer", {"diffusers", pipeline.transformer->class_name()}},
                               {"vae", {"diffusers", pipeline.vae->class_name()}},
                               {"scheduler", {"diffusers", scheduler_class->get<std::string>()}},
                               {"text_encoder", {}},
                               {"tokenizer", {}},
                               {"safety_checker", {}}};
  return pipeline;
}

void save_world_pipeline(const fs::path& dir, const WorldPipeline& pipeline) {
  save_model(dir / "transformer", *pipeline.transformer);
  save_model(dir / "vae", *pipeline.vae);
  write_json(dir / "scheduler" / "scheduler_config.json", pipeline.scheduler);
  PipelineIndex index = pipeline.index;
  for (auto& [name, component] : index.components)
    if (name != "transformer" && name != "vae" && name != "scheduler") component = {};
  write_pipeline_index(dir, index);  // last: a folder with an index is complete
}

Network dit_network(CosmosTransformer3DModel& transformer, std::optional<double> fps) {
  return [&transformer, fps](const Tensor& input, const Tensor& time, const Tensor& mask,
                             const Tensor& text) {
    const auto options = transformer.parameters().front().options();
    DitInputs inputs;
    inputs.hidden_states = input.to(options);
    inputs.timestep = time.to(options.device());
    inputs.encoder_hidden_states = text.to(options);
    inputs.fps = fps;
    if (transformer.config().in_channels > transformer.config().out_channels)
      inputs.condition_mask = mask.to(options);
    return transformer.forward(inputs);
  };
}

Tensor no_text(const CosmosTransformer3DModel& transformer, int64_t batch) {
  const DitConfig& config = transformer.config();
  return torch::zeros({batch, 1,
                       config.use_crossattn_projection ? config.crossattn_proj_in_channels
                                                       : config.text_embed_dim});
}

GivenFrames encode_given(VideoTokenizer& vae, const WorldRequest& request,
                         at::IntArrayRef latent_shape) {
  const Tensor& video = request.video;
  const int64_t condition_frames = request.condition_frames;
  GivenFrames given{.latents = torch::zeros(latent_shape),
                    .indicator = condition_indicator({0}, latent_shape[2])};
  if (!video.defined()) return given;
  const auto [B, C, n, H, W] = dims<5>(video, "video");
  const int64_t space = vae.spatial_compression();
  require(B == 1 && C == 3 && H == latent_shape[3] * space && W == latent_shape[4] * space,
          "video: expected [1, 3, n, ", latent_shape[3] * space, ", ", latent_shape[4] * space,
          "], got ", video.sizes());
  require(condition_frames == 1 || condition_frames == 2, "condition-frames: expected 1 or 2, got ",
          condition_frames);
  require(condition_frames <= latent_shape[2], "condition-frames: ", condition_frames,
          " latent frames are given, but the whole clip has ", latent_shape[2]);
  // The tokenizer is causal: the first latents depend on these frames alone.
  const int64_t frames = vae.video_frames(condition_frames);
  require(n >= frames, "video: ", condition_frames, " given latent frames need ", frames,
          " frames, the video has ", n);
  const torch::NoGradGuard no_grad;
  const auto options = vae.parameters().front().options();
  const Tensor pixels = video.slice(2, n - frames).to(options);
  const Posterior posterior = vae.encode(pixels);
  Tensor latents = posterior.mode();
  if (request.sample_posterior) {
    Philox random(request.seed, Purpose::kCondition);
    latents = posterior.sample(random.normal(latents.sizes()).to(latents.options()));
  }
  latents = latents.to(torch::kFloat32);
  given.latents.narrow(2, 0, condition_frames).copy_(vae.normalize_latents(latents));
  given.indicator = condition_indicator({condition_frames}, latent_shape[2]);
  return given;
}

World generate_world(WorldPipeline& pipeline, const WorldRequest& request) {
  const torch::NoGradGuard no_grad;
  const bool nvidia = request.compat == Compat::kNvidia;
  const auto shape = latent_shape(pipeline, request);
  const GivenFrames given = encode_given(*pipeline.vae, request, shape);
  const Tensor noise = initial_noise(request, shape);
  const auto sampler = nvidia ? make_nvidia_sampler(pipeline.scheduler, request.steps)
                              : make_sampler(pipeline.scheduler, request.steps);
  DenoiseOptions options{.diffusion = published_options(Formulation::kRectifiedFlow),
                         .condition_time = request.condition_time,
                         .seed = request.seed,
                         .integer_times = nvidia,
                         .progress = request.progress};
  // diffusers leaves guidance out up to 1, although its formula makes 0 the neutral value.
  if (nvidia || request.guidance > 1) options.guidance = request.guidance;
  World world;
  world.latents =
      denoise(dit_network(*pipeline.transformer), *sampler, noise, given,
              text_or_zeros(request.prompt_embeds, *pipeline.transformer, "prompt_embeds"),
              text_or_zeros(request.negative_prompt_embeds, *pipeline.transformer,
                            "negative_prompt_embeds"),
              options);
  const Tensor latents = pipeline.vae->denormalize_latents(world.latents);
  world.video = pipeline.vae->decode(latents.to(pipeline.vae->parameters().front().options()))
                    .to(torch::kFloat32)
                    .clamp(-1, 1);
  return world;
}

}  // namespace cosmos::modules
