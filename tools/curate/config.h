#pragma once

// Settings of cosmos-curate: one JSON file, unknown keys refused.

#include <string>
#include <vector>

#include "modules/core/fields.h"

namespace cosmos::curate {

struct SplitConfig {
  std::string method = "content";
  double threshold = 27;
  int64_t min_scene_frames = 15;
  double length_s = 10;
  double min_s = 2;
  double max_s = 60;
  double crop_s = 0;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("method", method, "content (cuts where HSV pixels change) or stride (equal lengths)");
    v("threshold", threshold, "of content: mean change of hue, saturation and value, of 255");
    v("min_scene_frames", min_scene_frames, "of content: frames between cuts");
    v("length_s", length_s, "of stride: seconds of a clip");
    v("min_s", min_s, "shorter clips are dropped");
    v("max_s", max_s, "longer scenes are divided");
    v("crop_s", crop_s, "seconds left out at both ends of a scene");
  }
};

struct FilterConfig {
  double max_black = 0.5;
  double max_frozen = 0.9;
  double min_sharpness = 0;
  double min_motion = 0;
  double min_patch_motion = 0;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("max_black", max_black, "fraction of a clip's frames that may be black; 1 = any");
    v("max_frozen", max_frozen, "fraction that may equal the frame before; 1 = any");
    v("min_sharpness", min_sharpness, "variance of the Laplacian; 0 = any");
    v("min_motion", min_motion, "mean of the codec's motion vectors over (H + W); 0 = any");
    v("min_patch_motion", min_patch_motion, "the same in the stillest 256 x 256 part; 0 = any");
  }
};

struct ClipConfig {
  std::string mode = "auto";
  std::string codec;
  double quality = 18;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("mode", mode, "auto (packets are copied where that is exact, else coded again) or encode");
    v("codec", codec, "libav's encoder; empty = the best there is");
    v("quality", quality, "0 to 51, lower is better");
  }
};

struct DedupConfig {
  int64_t near_bits = 3;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("near_bits", near_bits,
      "mean bits of 64 by which the perceptual hashes of near-duplicates differ at most; -1 = off");
  }
};

struct WorkerConfig {
  int64_t analyse = 2;
  int64_t write = 2;
  int64_t queue = 4;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("analyse", analyse, "threads that decode and measure");
    v("write", write, "threads that write clips");
    v("queue", queue, "videos that may wait between two stages");
  }
};

struct Config {
  std::vector<std::string> inputs;
  std::string output;
  std::string caption;
  SplitConfig split;
  FilterConfig filter;
  DedupConfig dedup;
  ClipConfig clips;
  WorkerConfig workers;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("inputs", inputs, "video files, folders of them, or .txt lists of paths");
    v("output", output, "folder of the training set");
    v("caption", caption, "caption of every clip; empty = none");
    v("split", split);
    v("filter", filter);
    v("dedup", dedup);
    v("clips", clips);
    v("workers", workers);
  }
};

/// Reads and checks the file. Throws Error naming the file and the setting.
Config load_config(const std::string& file);

/// What decides the result: every setting but `inputs`, `output` and `workers`, as text.
std::string result_settings(const Config& config);

}  // namespace cosmos::curate
