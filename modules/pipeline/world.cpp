#include "modules/pipeline/world.h"

#include <algorithm>

#include "modules/diffusion/conditioning.h"
#include "modules/diffusion/noise.h"
#include "modules/diffusion/scheduler_config.h"
#include "modules/pipeline/views.h"

namespace cosmos::modules {
namespace {

struct Chunk {
  int64_t index = 0;
  int64_t first = 0, last = 0;  ///< frames of the clip, [first, last)
};

// Each begins with the last `overlap` frames of the one before; the last may be cut short.
std::vector<Chunk> chunks_of(int64_t frames, int64_t chunk, int64_t overlap) {
  std::vector<Chunk> chunks;
  int64_t first = 0;
  do {
    chunks.push_back({static_cast<int64_t>(chunks.size()), first, std::min(first + chunk, frames)});
    first += chunk - overlap;
  } while (first < frames - overlap);
  return chunks;
}

// One generation: what stays the same from chunk to chunk.
class Generation {
 public:
  Generation(WorldPipeline& pipeline, const WorldRequest& request)
      : pipeline_(pipeline),
        request_(with_defaults(pipeline, request)),
        nvidia_(request.compat == Compat::kNvidia),
        family_(settings_of(pipeline, request.compat)),
        views_(request_.views.defined() ? request_.views.size(0) : 1) {
    options_ = {.diffusion = published_options(family_.formulation),
                .condition_time = *request_.condition_time,
                .condition_sigma = request_.augment_sigma,
                .integer_times = nvidia_ && family_.formulation == Formulation::kRectifiedFlow &&
                                 !is_distilled(pipeline.scheduler)};
    const Json& scheduler = pipeline_.scheduler;
    if (family_.formulation == Formulation::kEdm)
      options_.diffusion.sigma_data = scheduler.value("sigma_data", options_.diffusion.sigma_data);
    // diffusers leaves guidance out up to 1, although its formula makes 0 the neutral value.
    if (nvidia_ || *request_.guidance > 1) options_.guidance = *request_.guidance;
    text_ = text_or_zeros(request_.prompt_embeds, "prompt_embeds");
    negative_ = text_or_zeros(request_.negative_prompt_embeds, "negative_prompt_embeds");
    const auto& vae = *pipeline_.vae;
    shape_ = {1, vae.latent_channels(), views_ * vae.latent_frames(*request_.chunk_frames),
              *request_.height / vae.spatial_compression(),
              *request_.width / vae.spatial_compression()};
  }

  void run(const WorldSink& sink) {
    const auto chunks =
        chunks_of(*request_.num_frames, *request_.chunk_frames, request_.overlap_frames);
    Tensor start = request_.video;
    for (const Chunk& chunk : chunks) {
      World world = generate(chunk, static_cast<int64_t>(chunks.size()), start);
      start = request_.overlap_frames > 0
                  ? world.video.slice(2, world.video.size(2) - request_.overlap_frames).clone()
                  : Tensor();
      sink(own_part(chunk, world));
    }
  }

 private:
  torch::Device device() const { return pipeline_.transformer->parameters().front().device(); }

  int64_t given_frames(const Chunk& chunk) const {
    if (chunk.index == 0) return *request_.condition_frames;
    const int64_t overlap = request_.overlap_frames;
    return overlap == 0 ? 0 : pipeline_.vae->latent_frames(overlap);
  }

  // The chunk without what it repeats and what lies beyond the clip.
  World own_part(const Chunk& chunk, const World& world) const {
    if (views_ > 1) return world;  // one chunk, which is the clip
    const bool first = chunk.index == 0;
    const int64_t latents = pipeline_.vae->latent_frames(*request_.num_frames);
    const int64_t given = first ? 0 : given_frames(chunk);
    const int64_t room = latents - latents_done(chunk);
    return {world.latents.slice(2, given, std::min(given + room, world.latents.size(2))),
            world.video.slice(2, first ? 0 : request_.overlap_frames, chunk.last - chunk.first)};
  }

  int64_t latents_done(const Chunk& chunk) const {
    if (chunk.index == 0) return 0;
    const int64_t given =
        pipeline_.vae->latent_frames(std::max<int64_t>(request_.overlap_frames, 1));
    const int64_t own = shape_[2] - (request_.overlap_frames == 0 ? 0 : given);
    return shape_[2] + (chunk.index - 1) * own;
  }

  World generate(const Chunk& chunk, int64_t chunks, const Tensor& start) {
    auto& vae = *pipeline_.vae;
    const double scale =
        options_.diffusion.formulation == Formulation::kEdm ? options_.diffusion.sigma_data : 1.0;
    GivenFrames given = encode_views(start, {.condition_frames = given_frames(chunk),
                                             .sample_posterior = request_.sample_posterior,
                                             .seed = request_.seed,
                                             .scale = scale});
    given = {.latents = given.latents.to(device()), .indicator = given.indicator.to(device())};
    const auto sampler = make_sampler();
    DenoiseOptions options = options_;
    options.seed = request_.seed + static_cast<uint64_t>(chunk.index);
    if (request_.progress)
      options.progress = [&](int64_t done, int64_t steps) {
        request_.progress(chunk.index * steps + done, chunks * steps);
      };
    World world;
    world.latents = denoise(network(chunk), *sampler, noise(chunk).to(device()), given, text_,
                            negative_, options)
                        .cpu();
    const Tensors latents = (world.latents / scale).chunk(views_, 2);
    world.video = each_view(views_, 2, [&](int64_t v) {
      const Tensor z = vae.denormalize_latents(latents[static_cast<std::size_t>(v)]);
      return vae.decode(z.to(vae.parameters().front().options()))
          .to(torch::kCPU, torch::kFloat32)
          .clamp(-1, 1);
    });
    return world;
  }

  GivenFrames encode_views(const Tensor& video, const GivenOptions& options) {
    auto& vae = *pipeline_.vae;
    std::vector<int64_t> shape = shape_;
    shape[2] /= views_;
    std::vector<GivenFrames> given;
    for (int64_t v = 0; v < views_; ++v)
      given.push_back(
          encode_given(vae, video.defined() ? video.narrow(0, v, 1) : video, options, shape));
    const auto at = [&](int64_t v) -> const GivenFrames& {
      return given[static_cast<std::size_t>(v)];
    };
    return {.latents = each_view(views_, 2, [&](int64_t v) { return at(v).latents; }),
            .indicator = each_view(views_, 2, [&](int64_t v) { return at(v).indicator; })};
  }

  std::unique_ptr<Sampler> make_sampler() const {
    const int64_t steps = *request_.steps;
    if (is_distilled(pipeline_.scheduler)) return modules::make_sampler(pipeline_.scheduler, steps);
    if (family_.formulation == Formulation::kPredict2) {
      if (nvidia_) return modules::make_sampler(scheduler_json(Res2abConfig{}), steps);
      // The pipelines of diffusers put these into whatever scheduler they are given.
      Json scheduler = pipeline_.scheduler;
      scheduler.update(
          {{"sigma_max", 80.0}, {"sigma_min", 0.002}, {"final_sigmas_type", "sigma_min"}});
      require(scheduler.value("use_karras_sigmas", false) ||
                  scheduler.value("use_exponential_sigmas", false),
              "scheduler_config.json: Predict2 needs use_karras_sigmas; other levels begin at 0");
      return modules::make_sampler(scheduler, steps);
    }
    if (!nvidia_) return modules::make_sampler(pipeline_.scheduler, steps);
    if (family_.takes_control && family_.formulation == Formulation::kEdm)
      return modules::make_sampler(scheduler_json(Res2abConfig{}), steps);
    if (family_.takes_control)
      return make_nvidia_sampler(scheduler_json(predict25_scheduler(false)), steps);
    return make_nvidia_sampler(pipeline_.scheduler, steps);
  }

  Tensor noise(const Chunk& chunk) const {
    if (request_.latents.defined()) {
      require(request_.latents.sizes() == shape_, "latents: expected ", shape_, ", got ",
              request_.latents.sizes());
      return request_.latents.to(torch::kFloat32);
    }
    const auto index = static_cast<uint64_t>(chunk.index);
    if (nvidia_) return numpy_normal(static_cast<uint32_t>(request_.seed + index), shape_);
    return Philox(request_.seed, Purpose::kSampler, index).normal(shape_);
  }

  Network network(const Chunk& chunk) const {
    NetworkOptions options{.img_context = request_.img_context,
                           .control_scale = request_.control_scale,
                           .texts = texts_};
    if (family_.passes_fps) options.fps = request_.fps;
    if (request_.actions.defined()) options.action = actions(chunk);
    if (request_.views.defined()) options.view_indices = request_.views.unsqueeze(0);
    for (const auto& [name, control] : request_.controls)
      if (control.weight != 0 || control.mask)
        options.branches.push_back(branch(name, control, chunk));
    normalize_weights(options.branches, family_.normalizes_weights);
    return dit_network(*pipeline_.transformer, std::move(options));
  }

  // Those of the chunk's frames, [1, chunk_frames - 1, action_dim].
  Tensor actions(const Chunk& chunk) const {
    const int64_t count = *request_.chunk_frames - 1, all = request_.actions.size(0);
    const Tensor own =
        request_.actions.slice(0, std::min(chunk.first, all), std::min(chunk.first + count, all));
    return torch::constant_pad_nd(own, {0, 0, 0, count - own.size(0)}).unsqueeze(0);
  }

  ControlBranch branch(const std::string& name, const ControlSignal& control,
                       const Chunk& chunk) const {
    auto& vae = *pipeline_.vae;
    const auto& nets = pipeline_.control_nets;
    const auto found = nets.find(name);
    const auto how = nvidia_ ? Continue::kReflect : Continue::kLastFrame;
    const int64_t frames = *request_.chunk_frames, length = std::min(control.length, chunk.last);
    const auto read = [&](const FrameSource& source, int64_t channels, const std::string& what) {
      // Of the frames that the clip has, not of what the video has beyond them.
      const Tensor video = frames_beyond(source, length, chunk.first, frames, how);
      const auto [B, C, T, H, W] = dims<5>(video, what.c_str());
      require(
          B == views_ && (C == channels || C == 1) && H == *request_.height && W == *request_.width,
          what, ": expected [", views_, ", ", channels, " or 1, T, ", *request_.height, ", ",
          *request_.width, "], got ", video.sizes());
      return video.expand({views_, channels, T, H, W});
    };
    ControlBranch branch{.net = found == nets.end() ? nets.begin()->second : found->second,
                         .weight = control.weight};
    const std::string label = name.empty() ? "" : "." + name;
    const Tensor pixels = read(control.frames, 3, "controls" + label);
    branch.latents =
        each_view(views_, 2, [&](int64_t v) { return encode_all(vae, pixels.narrow(0, v, 1)); });
    if (control.mask) {
      const auto& patch = pipeline_.transformer->config().patch_size;
      const PatchGrid grid{.frames = shape_[2] / views_ / patch[0],
                           .rows = shape_[3] / patch[1],
                           .columns = shape_[4] / patch[2]};
      const Tensor masks = read(control.mask, 1, "control_masks" + label);
      branch.map = control.weight * each_view(views_, 1, [&](int64_t v) {
                     return token_map(masks.narrow(0, v, 1), grid);
                   });
    }
    return branch;
  }

  Tensor encode_all(VideoTokenizer& vae, const Tensor& pixels) const {
    const Posterior posterior = vae.encode(pixels.to(vae.parameters().front().options()));
    Tensor latents = posterior.mode();
    if (request_.sample_posterior) {
      Philox random(request_.seed, Purpose::kCondition, 1);
      latents = posterior.sample(random.normal(latents.sizes()).to(latents.options()));
    }
    return vae.normalize_latents(latents.to(torch::kFloat32));
  }

  Tensor text_or_zeros(const Tensor& text, const char* name) const {
    const Tensor zeros = no_text(*pipeline_.transformer, 1);
    if (!text.defined()) return zeros.repeat({1, views_, 1});
    require(text.dim() == 3 && text.size(0) == 1 && text.size(2) == zeros.size(2) &&
                text.size(1) % views_ == 0,
            name, ": expected [1, tokens, ", zeros.size(2), "]",
            views_ > 1 ? " with equally many tokens for each view" : "", ", got ", text.sizes());
    return text;
  }

  WorldPipeline& pipeline_;
  WorldRequest request_;
  bool nvidia_;
  WorldFamily family_;
  int64_t views_;
  DenoiseOptions options_;
  Tensor text_, negative_;
  std::shared_ptr<TextCaches> texts_ = std::make_shared<TextCaches>();
  std::vector<int64_t> shape_;  ///< latents of a chunk
};

}  // namespace

GivenFrames encode_given(VideoTokenizer& vae, const Tensor& video, const GivenOptions& options,
                         at::IntArrayRef latent_shape) {
  GivenFrames given{.latents = torch::zeros(latent_shape),
                    .indicator = condition_indicator({0}, latent_shape[2])};
  if (!video.defined() || options.condition_frames == 0) return given;
  const auto [B, C, n, H, W] = dims<5>(video, "video");
  const int64_t space = vae.spatial_compression();
  require(B == 1 && C == 3 && H == latent_shape[3] * space && W == latent_shape[4] * space,
          "video: expected [1, 3, n, ", latent_shape[3] * space, ", ", latent_shape[4] * space,
          "], got ", video.sizes());
  // The tokenizer is causal: the first latents depend on these frames alone.
  const int64_t frames = vae.video_frames(options.condition_frames);
  require(n >= frames, "video: ", options.condition_frames, " given latent frames need ", frames,
          " frames, the video has ", n);
  const torch::NoGradGuard no_grad;
  const auto model = vae.parameters().front().options();
  const Posterior posterior = vae.encode(video.slice(2, 0, frames).to(model));
  Tensor latents = posterior.mode();
  if (options.sample_posterior) {
    Philox random(options.seed, Purpose::kCondition);
    latents = posterior.sample(random.normal(latents.sizes()).to(latents.options()));
  }
  latents = vae.normalize_latents(latents.to(torch::kFloat32)) * options.scale;
  given.latents.narrow(2, 0, options.condition_frames).copy_(latents);
  given.indicator = condition_indicator({options.condition_frames}, latent_shape[2]);
  return given;
}

void generate_world(WorldPipeline& pipeline, const WorldRequest& request, const WorldSink& sink) {
  const torch::NoGradGuard no_grad;
  Generation(pipeline, request).run(sink);
}

World generate_world(WorldPipeline& pipeline, const WorldRequest& request) {
  Tensors latents, video;
  generate_world(pipeline, request, [&](const World& part) {
    latents.push_back(part.latents);
    video.push_back(part.video);
  });
  return {torch::cat(latents, 2), torch::cat(video, 2)};
}

}  // namespace cosmos::modules
