#pragma once

// Windows of video clips with their captions, text embeddings or latents.
//
//   tensors   video        uint8 [3, T, H, W]
//             latents      [C, T', H', W'], instead of video where the clip has precomputed ones
//             text_embeds  [S, D], where the folder has them
//             control      uint8 [3 k, T, H, W], the k control videos of the same frames, with
//             `control` fps          float32 [], frames a second of the window (absent with
//             latents)
//             action       float32 [T - 1, A], what a robot does between the window's frames
//   text      caption, path
//
// All clips are probed when the dataset opens (on several threads, without decoding); corrupt and
// too short ones are left out and named, and too many of them are an Error. A set that fits in
// `cache_mb` as pixels is decoded once and kept.

#include <atomic>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "modules/core/random.h"
#include "trainer/core/dataset.h"
#include "trainer/data/clip_list.h"
#include "trainer/data/control_video.h"
#include "trainer/data/robot_actions.h"
#include "trainer/data/video_reader.h"

namespace cosmos::trainer {

struct VideoDatasetConfig {
  std::string path;
  std::string captions;
  std::string caption;
  double fps = 0;
  int64_t num_frames = 0;
  int64_t height = 0;
  int64_t width = 0;
  std::vector<std::vector<int64_t>> buckets;
  std::string fit = "crop";
  std::string windows = "random";
  int64_t stride = 0;
  double from = 0;
  double to = 1;
  bool horizontal_flip = false;
  double max_failed_fraction = 0.1;
  int64_t cache_mb = 1024;
  bool use_latents = true;
  std::string control;
  std::string control_strength = "random";
  std::string actions;
  int64_t camera = 0;
  double action_scale = 20;
  double gripper_scale = 1;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("path", path, "folder (videos/, metas/), video file, or list of videos (.txt, .jsonl)");
    v("captions", captions, "JSONL file of {video, caption}; overrules metas/*.txt");
    v("caption", caption, "caption of clips that have none");
    v("fps", fps, "frames a second to resample to; 0 = every frame of the clip");
    v("num_frames", num_frames, "frames of a window");
    v("height", height, "pixels");
    v("width", width, "pixels");
    v("buckets", buckets,
      "instead of height and width: [[height, width], ...]; each clip goes to "
      "the one nearest in aspect ratio");
    v("fit", fit, "crop, pad or stretch to the wanted aspect ratio");
    v("windows", windows,
      "random: one window a clip and epoch, drawn per sample; all: every "
      "window, `stride` apart");
    v("stride", stride, "frames between windows; 0 = num_frames for all, 1 for random");
    v("from", from, "start of the part of each clip to use, as a fraction of it");
    v("to", to, "end of that part");
    v("horizontal_flip", horizontal_flip, "mirror half of the samples");
    v("max_failed_fraction", max_failed_fraction,
      "of the clips that may be unreadable or too short");
    v("cache_mb", cache_mb,
      "keep decoded pixels in memory when the whole set takes no more; 0 = never");
    v("use_latents", use_latents, "read latents/*.safetensors where the folder has them");
    v("control", control,
      "control video of each clip: edge or blur, made from it, or a folder beside videos/ (depth, "
      "seg, ...) with files of the same names; several with commas between; empty = none");
    v("control_strength", control_strength,
      "of edge and blur: very_low, low, medium, high, very_high, or random: drawn per sample");
    v("actions", actions,
      "robots: folder below path with an annotation file (.json) for each clip, which names the "
      "clip's video and holds its states; only frames that have a state are used; empty = none");
    v("camera", camera, "which of an annotation file's `videos`");
    v("action_scale", action_scale, "factor on the six numbers of a pose");
    v("gripper_scale", gripper_scale, "factor on the gripper's number");
  }
};

/// Throws Error for settings that cannot work, whatever the data.
void validate(const VideoDatasetConfig& config, const std::string& where);

class VideoDataset : public Dataset {
 public:
  /// `where` names the settings in errors ("configs/a.json: recipe.data").
  explicit VideoDataset(const VideoDatasetConfig& config, const std::string& where = "data");

  int64_t size() const override { return static_cast<int64_t>(items_.size()); }
  int64_t bucket(int64_t item) const override { return source(item).bucket; }
  Sample get(int64_t item, uint64_t seed, int64_t sample_index) override;
  std::string item_name(int64_t item) const override;
  std::vector<std::pair<std::string, std::string>> left_out() const override { return left_out_; }

  const VideoDatasetConfig& config() const { return config_; }

 private:
  /// A usable clip.
  struct Source {
    Clip clip{};
    VideoInfo info{};
    FrameSize size{};
    std::map<std::string, ControlFile> controls{};  ///< those that are not made from the clip
    std::optional<RobotActions> robot{};
    std::vector<int64_t> latents_shape{};
    int64_t bucket = 0;
    int64_t begin = 0, end = 0;  ///< usable frames at the wanted rate
    std::string failure{};       ///< why it is left out
  };
  struct Item {
    std::size_t source = 0;
    int64_t first = -1;  ///< frame; -1: drawn per sample
  };
  struct Cached {
    std::mutex mutex;
    Tensor frames;  ///< [end - begin, H, W, 3]
  };

  const Source& source(int64_t item) const;
  Source open(const Clip& clip) const;
  void choose_size(Source& source) const;
  void open_all(const std::vector<Clip>& clips, const std::string& where);
  void bucket_latents();
  Tensor window(std::size_t source, int64_t first);
  /// A control video of the window `frames`, [T, H, W, 3].
  Tensor control_window(const Source& source, const std::string& control, int64_t first,
                        const Tensor& frames, modules::Philox& random) const;
  /// Actions of the window from frame `first` on.
  Tensor actions(const Source& source, int64_t first) const;
  void open_actions(Source& source) const;

  VideoDatasetConfig config_;
  std::vector<Source> sources_;
  std::vector<Item> items_;
  std::vector<std::pair<std::string, std::string>> left_out_;
  std::vector<std::unique_ptr<Cached>> cache_;  ///< one a source, or none at all
};

}  // namespace cosmos::trainer
