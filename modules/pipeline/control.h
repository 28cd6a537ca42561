#pragma once

// Control of a generation by videos (edges, blur, depth, segmentation, ...): several at once, each
// with a weight, the weight with a map over pixels and frames.
//
//   hint_i = sum over controls k of w_k * hint_{k,i}
//
// w_k is a number, used as it is; or a number times a map in [0, 1]. As soon as there is one map,
// every weight counts as one, and all of them are divided by max(1, sum of w_k) token by token
// (Transfer2.5's inference code; Transfer1's does so with numbers too).

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "modules/pipeline/denoise.h"
#include "modules/pipeline/world_pipeline.h"

namespace cosmos::modules {

/// Frames [first, first + count) of a video, [1, channels, count, H, W] (of several cameras [views,
/// ...]): a chunk is asked for when
/// it is due, so that a long video is never held.
using FrameSource = std::function<Tensor(int64_t first, int64_t count)>;

/// A video in memory as a source.
FrameSource frames_of(Tensor video);

struct ControlSignal {
  /// Of the control video, 1 or 3 channels in [-1, 1]; of several cameras [views, ...].
  FrameSource frames;
  int64_t length = 0;  ///< frames it has
  double weight = 1;
  FrameSource mask = {};  ///< where and when, 1 channel in [0, 1]; none: everywhere
};

/// How a video that is too short for a chunk goes on.
enum class Continue {
  kLastFrame,  ///< diffusers
  kReflect,    ///< NVIDIA: backwards from the last frame, and forwards again
};

/// Frames [first, first + count) of a source of `length` frames, continued beyond its end.
Tensor frames_beyond(const FrameSource& source, int64_t length, int64_t first, int64_t count,
                     Continue how);

/// A map over pixels to one over tokens: the first frame by itself, the others trilinearly.
/// mask: [1, 1, T, H, W] -> [1, t h w, 1]
Tensor token_map(const Tensor& mask, const PatchGrid& grid);

/// One control of one chunk.
struct ControlBranch {
  std::shared_ptr<ControlModel> net;
  Tensor latents;     ///< [B, C, T, h, w], normalised
  double weight = 1;  ///< read when there is no map
  Tensor map = {};    ///< the weight of each token, [B | 1, tokens, 1]
};

/// Divides the branches' weights by max(1, their sum), token by token, where one of them is a map
/// or where `numbers_too` (Transfer1).
void normalize_weights(std::vector<ControlBranch>& branches, bool numbers_too = false);

/// Weighted sum of the branches' residuals. `inputs`: all but controls_latents.
Tensors control_residuals(const std::vector<ControlBranch>& branches,
                          const ControlNetInputs& inputs);

/// The texts of a generation as its models read them, each with what they have computed of it.
class TextCaches {
 public:
  struct Entry {
    Tensor text;    ///< as it was handed over
    Tensor embeds;  ///< on the model's device, in its dtype
    std::shared_ptr<ContextCache> cache;
  };
  /// The entry of this very tensor, made where there is none.
  Entry& of(const Tensor& text, const torch::TensorOptions& model);

 private:
  std::vector<Entry> entries_;
};

/// Settings of a network's calls beside what denoise() hands over.
struct NetworkOptions {
  std::optional<double> fps = {};  ///< reaches RoPE
  Tensor img_context = {};         ///< [1, I, D']; undefined: zeros where the model has the branch
  Tensor action = {};              ///< of a robot's model, [B, actions, action_dim]
  Tensor view_indices = {};        ///< of a multi-view model, [B | 1, views]
  std::vector<ControlBranch> branches = {};
  std::vector<double> control_scale = {1.0};  ///< one, or one a control block
  /// Shared by the networks of a generation, whose models and image context are the same.
  std::shared_ptr<TextCaches> texts = std::make_shared<TextCaches>();
};

/// The network as denoise() calls it: casts to the model's dtype, no padding. Without gradients,
/// keys and values of a text are computed by its first call.
Network dit_network(CosmosTransformer3DModel& transformer, NetworkOptions options = {});

/// Zeros [batch, 1, D], the "no text" of Cosmos. One token is as good as 512: attention over equal
/// keys and values does not depend on how many there are.
Tensor no_text(const CosmosTransformer3DModel& transformer, int64_t batch);

}  // namespace cosmos::modules
