#pragma once

// What the control branches of Transfer2.5 and Transfer1 share: what they are called with and
// return.

#include <vector>

#include "modules/dit/transformer.h"

namespace cosmos::modules {

/// One call; legend as DitInputs.
struct ControlNetInputs {
  /// Of the control video, [B, C', T, H, W]; filled up with zeros to the model's control channels.
  Tensor controls_latents = {};
  Tensor latents = {};                ///< what the base is given as hidden_states, [B, C, T, H, W]
  Tensor timestep = {};               ///< [B] or [1], or one per frame: [B, 1, T, 1, 1]
  Tensor encoder_hidden_states = {};  ///< [B, S, width]
  Tensor img_context = {};            ///< image features, [B, I, img_context_dim_in]
  Tensor condition_mask = {};         ///< [B, 1, T, H, W]
  /// Factor on each block's residual; fewer than blocks are repeated, more are cut off.
  std::vector<double> conditioning_scale = {1.0};
  Tensor padding_mask = {};    ///< [1 | B, 1, H', W']; undefined counts as zeros
  Tensor attention_mask = {};  ///< over text, [B, S]
  std::shared_ptr<ContextCache> context_cache = {};  ///< as DitInputs has it
  std::optional<double> fps = {};
  Tensor view_indices = {};  ///< as DitInputs has it
};

/// Sorts named tensors into a ControlNetInputs. Throws Error on a name that `class_name` does not
/// know.
ControlNetInputs control_net_inputs(const TensorMap& inputs, const std::string& class_name);

class ControlModel : public DitBase {
 public:
  /// Residuals for the base's blocks 0, n, 2n, ..., one a control block: [B, tokens, D] each.
  /// Throws Error on a shape that does not fit.
  virtual Tensors forward(const ControlNetInputs& inputs) = 0;
  virtual int64_t residuals() const = 0;
  /// Whether the residuals are for the base's first blocks, one each, and the others get none
  /// (Transfer1), instead of being spread over all of them.
  virtual bool first_blocks_only() const { return false; }
  /// Channels of the base's latents, condition mask and padding mask.
  virtual int64_t latent_channels() const = 0;

  /// "forward" with ControlNetInputs' names (img_context beside encoder_hidden_states) ->
  /// control_block_samples.N.
  TensorMap run(const std::string& method, const TensorMap& inputs) override;

  bool splits_tokens() const override { return true; }

 protected:
  using DitBase::DitBase;
  /// Throws unless control latents (at most `room` channels) and latents fit each other and the
  /// model.
  void check_control(const ControlNetInputs& inputs, int64_t room) const;
  /// What the base would be called with.
  static DitInputs base_inputs(const ControlNetInputs& inputs);
  /// x with zeros for the channels it lacks.
  static Tensor fill_channels(const Tensor& x, int64_t channels);
  /// Patches with their masks, this rank's: [B, t, h w, D]
  virtual Tensor embed(const char* name, PatchEmbed& embed, const DitInputs& inputs);
  /// Hints [B, t, h w, D] times their factors, of all ranks: [B, tokens, D]
  Tensors finish(Tensors hints, const std::vector<double>& scales) const;
};

}  // namespace cosmos::modules
