#pragma once

// Cosmos Predict2.5: text, image or video to world. The pipeline that diffusers calls
// Cosmos2_5_PredictBasePipeline, without text encoder and guardrail: text comes as embeddings.
//
//   auto pipeline = load_world_pipeline("Cosmos-Predict2.5-2B");
//   World world = generate_world(pipeline, {.video = frame, .height = 704, .width = 1280});

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "modules/dit/transformer.h"
#include "modules/hub/pipeline_folder.h"
#include "modules/pipeline/denoise.h"
#include "modules/tokenizer/video_tokenizer.h"

namespace cosmos::modules {

/// A pipeline folder: model_index.json, transformer/, vae/, scheduler/scheduler_config.json. Other
/// components (text_encoder/, tokenizer/, ...) are not read.
struct WorldPipeline {
  PipelineIndex index;
  Json scheduler;  ///< scheduler_config.json as read
  std::shared_ptr<CosmosTransformer3DModel> transformer;
  std::shared_ptr<VideoTokenizer> vae;
};

/// Throws Error when a component is missing or of another class.
WorldPipeline load_world_pipeline(const std::filesystem::path& dir,
                                  torch::Dtype dtype = torch::kFloat32);

/// The same from component folders; `scheduler` empty: Predict2.5's flow levels with shift 5.
WorldPipeline load_world_components(const std::filesystem::path& transformer,
                                    const std::filesystem::path& vae,
                                    const std::filesystem::path& scheduler,
                                    torch::Dtype dtype = torch::kFloat32);

/// Writes a pipeline folder that diffusers' Cosmos2_5_PredictBasePipeline has the components of;
/// text encoder and guardrail are left out (null in model_index.json).
void save_world_pipeline(const std::filesystem::path& dir, const WorldPipeline& pipeline);

/// Where the public code bases differ.
enum class Compat {
  kDiffusers,  ///< the level itself as time; guidance only when > 1; levels of diffusers' scheduler
  kNvidia,     ///< integer timesteps / 1000, NVIDIA's levels, NumPy's noise
};

struct WorldRequest {
  /// Pixels to start from, [1, 3, n, H, W] in [-1, 1]: one frame (image) or more (the last ones are
  /// used). Undefined: text to world.
  Tensor video{};
  int64_t condition_frames = 1;   ///< given latent frames when there is a video: 1 or 2
  bool sample_posterior = false;  ///< draw the given latents from the tokenizer's posterior
  int64_t height = 704;
  int64_t width = 1280;
  int64_t num_frames = 93;
  int64_t steps = 36;
  double guidance = 7.0;
  /// Network time of given frames; negative: that of the clip. 0.0001 for the post-trained 2B.
  double condition_time = 0.0001;
  uint64_t seed = 0;
  Compat compat = Compat::kDiffusers;
  Tensor prompt_embeds{};           ///< [1, S, D]; undefined: zeros, which is "no text"
  Tensor negative_prompt_embeds{};  ///< the same
  Tensor latents{};                 ///< initial noise [1, C, T, h, w]; undefined: from the seed
  std::function<void(int64_t done, int64_t steps)> progress{};
};

struct World {
  Tensor latents;  ///< [1, C, T, h, w], normalised: diffusers' output_type "latent"
  Tensor video;    ///< [1, 3, num_frames, H, W] in [-1, 1]
};

/// Throws Error on a request that the models cannot serve (sizes that do not divide, too few
/// frames, shapes of embeddings or noise), saying the nearest one that they can.
World generate_world(WorldPipeline& pipeline, const WorldRequest& request);

/// The network as denoise() calls it: casts to the model's dtype, no padding. `fps` reaches RoPE.
Network dit_network(CosmosTransformer3DModel& transformer, std::optional<double> fps = {});

/// Zeros [batch, 1, D], the "no text" of Cosmos. One token is as good as 512: attention over equal
/// keys and values does not depend on how many there are.
Tensor no_text(const CosmosTransformer3DModel& transformer, int64_t batch);

/// Encodes the given pixels of a request to normalised latents, with zeros after them.
GivenFrames encode_given(VideoTokenizer& vae, const WorldRequest& request,
                         at::IntArrayRef latent_shape);

}  // namespace cosmos::modules
