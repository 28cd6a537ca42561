#pragma once

// The discrete video tokenizers of Cosmos Tokenizer (DV4x8x8, DV8x8x8, DV8x16x16): the network of
// AutoencoderKLCosmos, with every latent rounded to one of a few levels per channel. diffusers has
// no such class; ours is called CosmosDiscreteVideoTokenizer, and its weights keep
// AutoencoderKLCosmos' names.

#include "modules/tokenizer/autoencoder_kl_cosmos.h"

namespace cosmos::modules {

/// config.json: AutoencoderKLCosmos' keys without latent statistics (codes have none), and the two
/// of the quantiser. latent_channels is the number of levels.
struct CosmosDiscreteConfig : CosmosVaeConfig {
  int64_t encoder_channels = 16;  ///< of the encoder's output (z_channels of NVIDIA's configs)
  std::vector<int64_t> levels = {8, 8, 8, 5, 5, 5};

  template <typename Visitor>
  void fields(Visitor& v) {
    visit_network(v);
    v("z_channels", encoder_channels, "channels between the networks and the quantiser");
    v("levels", levels, "levels of each quantised channel");
  }
  static CosmosDiscreteConfig from_json(const Json& json, const std::string& where);
};

class CosmosDiscreteVideoTokenizer : public AutoencoderKLCosmos {
 public:
  explicit CosmosDiscreteVideoTokenizer(const Json& config, const std::string& where = "config");

  std::string class_name() const override { return "CosmosDiscreteVideoTokenizer"; }
  Json config_json() const override;
  const std::vector<int64_t>& code_levels() const override { return discrete_.levels; }

 protected:
  Posterior posterior(const Tensor& moments) const override;

 private:
  CosmosDiscreteConfig discrete_;
};

}  // namespace cosmos::modules
