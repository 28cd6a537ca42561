#pragma once

// The control branch of Cosmos Transfer1 (NVIDIA's GeneralDITEncoder): a copy of the base's stem
// and first blocks, and a stem of its own for the hint.
//
//   x = patch_embed(x_t, condition mask, padding mask)
//   x = block_0(x) + hint_embed(patch_embed_hint(control latents, padding mask))
//   r_0 = zero_blocks.0(x);   x = block_i(x), r_i = zero_blocks.i(x) for i = 1, 2
//
// The base adds r_i after its block i. hint_embed: products with bias and SiLU between them, of
// widths D, hint_widths..., D. Extra positions are added before every block, as in the base.
//
// Names of NVIDIA's files: x_embedder -> patch_embed, x_embedder2 -> patch_embed_hint,
// input_hint_block
// -> hint_embed, zero_blocks.blockN -> zero_blocks.N, blocks.blockN -> control_blocks.N with the
// base's names inside.

#include "modules/transfer/control_net.h"
#include "modules/transfer/transfer1_config.h"

namespace cosmos::modules {

class CosmosTransfer1ControlNetModel : public ControlModel {
 public:
  /// Fresh weights as the base's, the last product of the hint's stem and the zero blocks zero.
  explicit CosmosTransfer1ControlNetModel(const Transfer1Config& config);

  std::string class_name() const override { return "CosmosTransfer1ControlNetModel"; }
  Json config_json() const override { return net_config_.to_json(); }
  const Transfer1Config& net_config() const { return net_config_; }
  int64_t residuals() const override { return net_config_.num_control_blocks; }
  bool first_blocks_only() const override { return true; }
  int64_t latent_channels() const override { return net_config_.in_channels + 1; }

  /// See ControlModel. img_context is refused: Transfer1 has none.
  Tensors forward(const ControlNetInputs& inputs) override;

 private:
  Transfer1Config net_config_;
  PatchEmbed patch_embed_{nullptr}, patch_embed_hint_{nullptr};
  std::shared_ptr<torch::nn::Module> hint_embed_;
  std::vector<Linear> hint_products_, zero_blocks_;
  std::vector<TransformerBlock> control_blocks_;
};

}  // namespace cosmos::modules
