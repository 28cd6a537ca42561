#include "modules/tokenizer/discrete_video.h"

#include "modules/core/fields.h"
#include "modules/tokenizer/fsq_codes.h"

namespace cosmos::modules {

CosmosDiscreteConfig CosmosDiscreteConfig::from_json(const Json& json, const std::string& where) {
  CosmosDiscreteConfig config;
  read_fields(json, config, where, UnknownKeys::kKeep);
  check_levels(config.levels, where);
  require(config.encoder_channels >= 1, where, ": z_channels must be at least 1");
  config.latent_channels = static_cast<int64_t>(config.levels.size());
  config.z_channels = config.encoder_channels;
  config.stats = {};
  config.check(where);
  return config;
}

CosmosDiscreteVideoTokenizer::CosmosDiscreteVideoTokenizer(const Json& config,
                                                           const std::string& where)
    : AutoencoderKLCosmos(config, CosmosDiscreteConfig::from_json(config, where)),
      discrete_(CosmosDiscreteConfig::from_json(config, where)) {}

Json CosmosDiscreteVideoTokenizer::config_json() const {
  Json json = source_;
  json.update(write_fields(discrete_));
  json["_class_name"] = class_name();
  return json;
}

Posterior CosmosDiscreteVideoTokenizer::posterior(const Tensor& moments) const {
  return {.mean = quantize(moments, discrete_.levels), .logvar = {}, .quantized = true};
}

}  // namespace cosmos::modules
