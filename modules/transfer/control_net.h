#pragma once

// The control branch of Cosmos Transfer2.5: diffusers' CosmosControlNetModel, same parameter names,
// same numbers. It reads a control video's latents (edges, blur, depth, ...) beside the noisy ones
// and returns one residual for every n-th block of the base transformer.

#include <vector>

#include "modules/dit/transformer.h"
#include "modules/transfer/control_net_config.h"

namespace cosmos::modules {

/// One call; legend as DitInputs.
struct ControlNetInputs {
  /// Of the control video, [B, C', T, H, W]; filled up with zeros to the model's control channels.
  Tensor controls_latents = {};
  Tensor latents = {};   ///< what the base is given as hidden_states, [B, C, T, H, W]
  Tensor timestep = {};  ///< [B] or [1], or one per frame: [B, 1, T, 1, 1]
  Tensor encoder_hidden_states = {};  ///< [B, S, width]
  Tensor img_context = {};            ///< image features, [B, I, img_context_dim_in]
  Tensor condition_mask = {};         ///< [B, 1, T, H, W]
  /// Factor on each block's residual; fewer than blocks are repeated, more are cut off.
  std::vector<double> conditioning_scale = {1.0};
  Tensor padding_mask = {};    ///< [1 | B, 1, H', W']; undefined counts as zeros
  Tensor attention_mask = {};  ///< over text, [B, S]
  std::optional<double> fps = {};
};

/// A DiT block between two products with bias:
///   x = before_proj(x) + base     (first block only)
///   x = block(x);  hint = after_proj(x)
/// Parameters: those of TransformerBlock, after_proj.*, and before_proj.* in the first.
class ControlBlockImpl : public TransformerBlockImpl {
 public:
  ControlBlockImpl(const DitConfig& config, bool first);
  /// x, base: [B, T, N, D] (base: read by the first block only) -> {x, hint}
  Tensors forward(const Tensor& x, const Tensor& base, const BlockContext& context);

 private:
  Linear before_proj_{nullptr}, after_proj_{nullptr};
};
TORCH_MODULE(ControlBlock);

class CosmosControlNetModel : public DitBase {
 public:
  /// Fresh weights as CosmosTransformer3DModel's, before_proj and after_proj zero: a new control
  /// net changes nothing. Inside SkipInit nothing is written.
  explicit CosmosControlNetModel(const ControlNetConfig& config);

  std::string class_name() const override { return "CosmosControlNetModel"; }
  Json config_json() const override { return net_config_.to_json(); }
  const ControlNetConfig& net_config() const { return net_config_; }

  /// Residuals for the base's blocks 0, n, 2n, ..., one a control block: [B, tokens, D] each.
  /// Throws Error on a shape that does not fit.
  Tensors forward(const ControlNetInputs& inputs);

  /// "forward" with ControlNetInputs' names (img_context beside encoder_hidden_states) ->
  /// control_block_samples.N.
  TensorMap run(const std::string& method, const TensorMap& inputs) override;

  /// Takes over the base's stem and its first blocks, as NVIDIA starts its training. Throws Error
  /// when the two do not fit.
  void copy_base(const CosmosTransformer3DModel& base);

 private:
  ControlNetInputs checked(const ControlNetInputs& inputs) const;
  Tensor embed(const char* name, PatchEmbed& embed, const DitInputs& inputs);
  Tensor run_control_block(std::size_t index, Tensor& x, const Tensor& base,
                           const BlockContext& context);

  ControlNetConfig net_config_;
  PatchEmbed patch_embed_{nullptr}, patch_embed_base_{nullptr};
  std::vector<ControlBlock> control_blocks_;
};

/// Sorts named tensors into a ControlNetInputs. Throws Error on a name that the class does not know.
ControlNetInputs control_net_inputs(const TensorMap& inputs);

}  // namespace cosmos::modules
