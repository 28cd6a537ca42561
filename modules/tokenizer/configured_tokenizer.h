#pragma once

// The part of a tokenizer's class that follows from its config alone.

#include <utility>

#include "modules/core/fields.h"
#include "modules/tokenizer/video_tokenizer.h"

namespace cosmos::modules {

/// `Config` has fields() and a LatentStats `stats`.
template <typename Config>
class ConfiguredTokenizer : public VideoTokenizer {
 public:
  /// The file's keys, those that we do not know as they were.
  Json config_json() const override {
    Json json = source_;
    json.update(write_fields(config_));
    json["_class_name"] = class_name();
    return json;
  }
  const Config& config() const { return config_; }

  int64_t temporal_compression() const override { return temporal_; }
  int64_t spatial_compression() const override { return spatial_; }
  const LatentStats& latent_stats() const override { return config_.stats; }
  void set_latent_stats(LatentStats stats) override { config_.stats = std::move(stats); }

 protected:
  /// Of a checked config; `source` is the file's. Constructors set the compression.
  ConfiguredTokenizer(Json source, Config config)
      : source_(std::move(source)), config_(std::move(config)) {}

  Json source_;
  Config config_;
  int64_t temporal_ = 1, spatial_ = 1;
};

/// Reads `json` as the file of `where` and checks it. Keys it does not know are let be.
template <typename Config>
Config read_tokenizer_config(const Json& json, const std::string& where) {
  Config config;
  read_fields(json, config, where, UnknownKeys::kKeep);
  config.check(where);
  return config;
}

}  // namespace cosmos::modules
