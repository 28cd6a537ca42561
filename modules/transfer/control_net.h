#pragma once

// The control branch of Cosmos Transfer2.5: diffusers' CosmosControlNetModel, same parameter names,
// same numbers. It reads a control video's latents (edges, blur, depth, ...) beside the noisy ones
// and returns one residual for every n-th block of the base transformer.

#include <vector>

#include "modules/transfer/control_model.h"
#include "modules/transfer/control_net_config.h"

namespace cosmos::modules {

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

class CosmosControlNetModel : public ControlModel {
 public:
  /// Fresh weights as CosmosTransformer3DModel's, before_proj and after_proj zero: a new control
  /// net changes nothing. Inside SkipInit nothing is written.
  explicit CosmosControlNetModel(const ControlNetConfig& config)
      : CosmosControlNetModel(config, 0) {}

  std::string class_name() const override { return "CosmosControlNetModel"; }
  Json config_json() const override { return net_config_.to_json(); }
  const ControlNetConfig& net_config() const { return net_config_; }

  int64_t residuals() const override { return net_config_.n_controlnet_blocks; }
  int64_t latent_channels() const override { return net_config_.latent_channels; }

  Tensors forward(const ControlNetInputs& inputs) override;

  /// Takes over the base's stem and its first blocks, as NVIDIA starts its training. Throws Error
  /// when the two do not fit.
  void copy_base(const CosmosTransformer3DModel& base);

 protected:
  /// For a variant whose stems read `stem_channels` more than the config's.
  CosmosControlNetModel(const ControlNetConfig& config, int64_t stem_channels);
  /// What a variant makes of the control's tokens before the first block.
  virtual Tensor control_tokens(const Tensor& x) { return x; }

 private:
  /// Advances x by a block and returns the block's hint.
  Tensor run_control_block(std::size_t index, Tensor& x, const Tensor& base,
                           const BlockContext& context);

  ControlNetConfig net_config_;
  PatchEmbed patch_embed_{nullptr}, patch_embed_base_{nullptr};
  std::vector<ControlBlock> control_blocks_;
};

}  // namespace cosmos::modules
