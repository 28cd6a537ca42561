#pragma once

// The video diffusion transformer of Cosmos Predict1, Predict2 and Predict2.5: diffusers'
// CosmosTransformer3DModel, same parameter names, same numbers.

#include <functional>
#include <optional>
#include <vector>

#include "modules/core/model.h"
#include "modules/dit/block.h"

namespace cosmos::modules {

/// One call. B samples, C latent channels, T latent frames, H x W latent rows and columns, S text
/// tokens. Floating tensors have the model's dtype (timestep: any). Undefined tensors are left out.
struct DitInputs {
  Tensor hidden_states = {};  ///< [B, C, T, H, W]
  Tensor timestep = {};       ///< [B] or [1], or one per frame: [B, 1, T, 1, 1]
  /// Text, [B, S, crossattn_proj_in_channels or text_embed_dim].
  Tensor encoder_hidden_states = {};
  Tensor img_context = {};  ///< image features, [B, I, img_context_dim_in]
  /// Residuals of a control net for blocks 0, n, 2n, ...: [B | 1, tokens, D] each; undefined: none.
  Tensors block_controlnet_hidden_states = {};
  Tensor attention_mask = {};  ///< over text, [B, S]: bool (true = attend) or added to the scores
  std::optional<double> fps = {};  ///< of the video, stretches RoPE in time; none: frame indices
  Tensor condition_mask = {};      ///< one more channel: [B, 1, T, H, W]
  /// [1 | B, 1, H', W'], nearest-resized to H x W, 1 = padding. Undefined counts as zeros: nothing
  /// is padded.
  Tensor padding_mask = {};
  /// Of encoder_hidden_states and img_context, for calls without gradients; null: none.
  std::shared_ptr<ContextCache> context_cache = {};
  Tensor action = {};  ///< of action-conditioned models, [B, actions, action_dim]
  /// Of multi-view models, whose T and S are those of all views, one after another: which camera
  /// each view is, [B | 1, views] int64. Undefined: 0, 1, 2, ...
  Tensor view_indices = {};
};

/// What the transformer and its control net share: config, time, text, positions, and how a block
/// is run. Parameters: time_embed.*, and where the config has them learnable_pos_embed.*,
/// crossattn_proj.*, img_context_proj.*.
class DitBase : public Model {
 public:
  const DitConfig& config() const { return config_; }
  bool keeps_float32(const std::string& name) const override;
  bool reads_tokens(const std::string& linear) const override;
  /// Fresh values for the parameter `name`, from torch's generator.
  static void initialise_parameter(const std::string& name, Tensor weight);

 protected:
  using ContextFn = std::function<Tensors(const Tensors& xs, const BlockContext& context)>;

  explicit DitBase(const DitConfig& config) : config_(config) {}
  /// Registers the shared modules, uninitialised.
  void register_context();
  /// Fresh weights for every parameter: see CosmosTransformer3DModel.
  void initialise();
  /// Checks what the context is made from: patches, time, text, image, padding, fps.
  void check_context(const DitInputs& inputs) const;
  PatchGrid grid_of(const Tensor& hidden_states) const;
  /// What a variant of the model adds to the time code and to the shared modulation: nothing, or
  /// [B, t | 1, 1, D] and [B, t | 1, 1, 3 D].
  virtual Tensors time_offsets(const DitInputs& inputs, const PatchGrid& grid);
  /// Views that stand one after another along T: 1 but in multi-view models. Checks what says so.
  virtual int64_t views(const DitInputs& inputs) const;
  /// Everything the blocks share, from time, text, image and positions.
  BlockContext make_context(const DitInputs& inputs, const PatchGrid& grid);
  /// run_block on `xs` and whatever of the context may carry a gradient.
  Tensors run_with_context(const std::string& name, torch::nn::Module& block, const Tensors& xs,
                           const BlockContext& context, const ContextFn& fn);

  DitConfig config_;
  LearnablePosEmbed learnable_pos_embed_{nullptr};
  TimeEmbed time_embed_{nullptr};
  Projection crossattn_proj_{nullptr}, img_context_proj_{nullptr};
};

class CosmosTransformer3DModel : public DitBase {
 public:
  /// Fresh weights as NVIDIA trains from: products truncated normal with deviation 1/sqrt(fan_in),
  /// the second product of every modulation zero, norms one, biases zero. (diffusers' class has
  /// torch's Linear defaults and zero positions: it is made to load weights, not to start from.)
  /// Inside SkipInit nothing is written.
  explicit CosmosTransformer3DModel(const DitConfig& config)
      : CosmosTransformer3DModel(config, 0) {}

  std::string class_name() const override { return "CosmosTransformer3DModel"; }
  Json config_json() const override { return config_.to_json(); }

  /// Lets a base that was trained without control take residuals after blocks 0, n, 2n, ....
  void set_control_interval(int64_t blocks) { config_.controlnet_block_every_n = blocks; }

  /// Predicts noise, velocity or whatever the weights were trained for:
  /// [B, out_channels, T, H, W]. Throws Error on a shape that does not fit.
  Tensor forward(const DitInputs& inputs);

  /// "forward" with DitInputs' names, `block_controlnet_hidden_states.N` one by one -> `sample`.
  TensorMap run(const std::string& method, const TensorMap& inputs) override;

  std::vector<std::string> block_order() const override;
  /// The tokens of every frame are split, so that modulation by frame stays what it is.
  bool splits_tokens() const override { return true; }
  ParallelPlan parallel_plan() const override;

 protected:
  /// For a variant whose stem reads `stem_channels` more than the config's.
  CosmosTransformer3DModel(const DitConfig& config, int64_t stem_channels);
  /// The tokens of latents, masks and what a variant adds, [B, t, h w, D].
  virtual Tensor embed_patches(const DitInputs& inputs);

  PatchEmbed patch_embed_{nullptr};

 private:
  void check(const DitInputs& inputs) const;
  void check_residuals(const DitInputs& inputs) const;
  Tensor run_transformer_block(int64_t index, const Tensor& x, const BlockContext& context);

  std::vector<TransformerBlock> transformer_blocks_;
  Modulation norm_out_{nullptr};
  Linear proj_out_{nullptr};
};

/// [latents, condition mask, padding mask] along channels: what is cut into patches, [B, C', T, H,
/// W]. Without `padding_mask` the last one is left out.
Tensor concat_masks(const DitInputs& inputs, bool padding_mask);

/// Throws unless `x` has the sizes `expected`, where -1 stands for any; `legend` names them.
void check_shape(const Tensor& x, const char* name, std::initializer_list<int64_t> expected,
                 const char* legend);

/// Sorts named tensors into a DitInputs. Throws Error on a name that the class does not know, and
/// on a missing one that it needs.
DitInputs dit_inputs(const TensorMap& inputs);

}  // namespace cosmos::modules
