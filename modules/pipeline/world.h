#pragma once

// Generation with every Cosmos pipeline: text, image or video to world (Predict1, 2, 2.5), picture
// (Predict2) and control to world (Transfer2.5), without text encoder and guardrail: text comes as
// embeddings.
//
//   auto pipeline = load_world_pipeline("Cosmos-Predict2.5-2B");
//   World world = generate_world(pipeline, {.video = frame, .height = 704, .width = 1280});
//
// A clip longer than a chunk is generated chunk by chunk: each begins with the last frames of the
// one before, as given frames.

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "modules/pipeline/control.h"
#include "modules/pipeline/family.h"
#include "modules/pipeline/world_pipeline.h"

namespace cosmos::modules {

/// What is left out follows from the pipeline's class (WorldFamily).
struct WorldRequest {
  /// Pixels to start from, [1, 3, n, H, W] in [-1, 1]. Predict2.5 and Transfer2.5 take the last
  /// frames that condition_frames needs, Predict1 and 2 the first of the last num_frames.
  /// Undefined: none.
  Tensor video{};
  /// Given latent frames when there is a video. Predict2.5, Transfer2.5: 1; others: all there are.
  std::optional<int64_t> condition_frames{};
  bool sample_posterior = false;  ///< draw given and control latents from the tokenizer's posterior
  std::optional<int64_t> height{}, width{};
  /// Transfer: those of the shortest control, which is also the most; a robot: one more than its
  /// actions.
  std::optional<int64_t> num_frames{};
  std::optional<int64_t> steps{};
  std::optional<double> fps{};
  std::optional<double> guidance{};
  /// Network time of given frames; negative: that of the clip.
  std::optional<double> condition_time{};
  /// Multi-view models: which camera each view is, [views] int64. `video` is then [views, 3, n, H,
  /// W], given frames of each, and latents, prompts and the world's video are those of the views
  /// one after another. Undefined: cameras 0, 1, ... to as many as `video` has, else all.
  Tensor views{};
  /// Predict1: noise level at which given frames are shown.
  double augment_sigma = 0.001;
  uint64_t seed = 0;
  Compat compat = Compat::kDiffusers;
  Tensor prompt_embeds{};           ///< [1, S, D]; undefined: zeros, which is "no text"
  Tensor negative_prompt_embeds{};  ///< the same
  Tensor img_context{};             ///< Transfer2.5's image features, [1, I, D']; undefined: zeros
  /// Initial noise [1, C, T, h, w] of every chunk; undefined: from the seed, another one a chunk.
  Tensor latents{};
  /// What the robot does from each frame of the clip to the next, [actions, action_dim]; a robot's
  /// model needs it, no other takes it. A chunk that goes on beyond them sees zeros (NVIDIA).
  Tensor actions{};
  std::map<std::string, ControlSignal> controls{};  ///< by the name of their control net
  std::vector<double> control_scale{1.0};           ///< of all of them: one, or one a control block
  /// Frames generated at once; left out: those of `latents`, else the class's (93 or 121), where a
  /// clip without control may be shorter. A robot's model: 13, as released, or what it reads.
  std::optional<int64_t> chunk_frames{};
  int64_t overlap_frames = 1;  ///< of a chunk that are given from the one before
  std::function<void(int64_t done, int64_t steps)> progress{};
};

/// A part of a generation, in order; together they are the clip.
struct World {
  Tensor latents;  ///< [1, C, T, h, w], normalised: diffusers' output_type "latent"
  Tensor video;    ///< [1, 3, n, H, W] in [-1, 1]; of several views, one after another
};
using WorldSink = std::function<void(const World& part)>;

/// Hands over each chunk as it is done, without what it shares with the one before: memory does not
/// grow with the clip. Throws Error on a request that the models cannot serve (sizes that do not
/// divide, too few frames, shapes of embeddings or noise), saying the nearest one that they can.
void generate_world(WorldPipeline& pipeline, const WorldRequest& request, const WorldSink& sink);

/// The same in one piece.
World generate_world(WorldPipeline& pipeline, const WorldRequest& request);

/// The settings of the pipeline's class under `compat`, and of its transformer's kind.
WorldFamily settings_of(const WorldPipeline& pipeline, Compat compat);

/// The request with everything filled in that the class, the models and the given tensors decide.
WorldRequest with_defaults(const WorldPipeline& pipeline, WorldRequest request);

/// Encodes given pixels (their first `condition_frames` latent frames) to normalised latents, with
/// zeros after them. video undefined or condition_frames 0: nothing is given.
struct GivenOptions {
  int64_t condition_frames = 0;
  bool sample_posterior = false;
  uint64_t seed = 0;
  double scale = 1;  ///< factor on normalised latents (sigma_data)
};
GivenFrames encode_given(VideoTokenizer& vae, const Tensor& video, const GivenOptions& options,
                         at::IntArrayRef latent_shape);

}  // namespace cosmos::modules
