#pragma once

// Windows of clips that several cameras took at once.
//
//   PATH/videos/CAMERA/NAME.mp4            the same NAME for every camera
//   PATH/metas/CAMERA/NAME.txt             captions, where there are any, or
//   PATH/captions/CAMERA/NAME.json         {"caption": ...}
//   PATH/text_embeds/CAMERA/NAME.safetensors
//   PATH/CONTROL/CAMERA/NAME.mp4           control videos (`control`), one for every camera
//
// (the layout of NVIDIA's Waymo and Transfer2.5 examples, with safetensors where it has pickles)
//
//   tensors   video         uint8 [3 V, T, H, W], view by view
//             control       uint8 [3 k V, T, H, W]: of each of the k controls, view by view
//             view_indices  int64 [V]: which camera each view is
//             text_embeds   [V S, D], where the folder has them: zeros of a view without
//             fps           float32 []
//   text      caption (of the first view that has one), path
//
// The views of a window, and their controls, show the same times. All files are probed when the
// dataset opens; a clip that one camera lacks or has no control video of, or that is too short in
// one, is left out and named.

#include <filesystem>
#include <string>
#include <vector>

#include "modules/core/random.h"
#include "trainer/core/dataset.h"
#include "trainer/data/control_video.h"
#include "trainer/data/video_reader.h"

namespace cosmos::trainer {

struct MultiViewDatasetConfig {
  std::string path;
  std::vector<std::string> cameras;
  bool front_caption_only = false;
  int64_t text_tokens = 512;
  std::string control;
  std::string control_strength = "random";
  double fps = 0;
  int64_t num_frames = 29;
  int64_t height = 0;
  int64_t width = 0;
  std::string fit = "crop";
  std::string windows = "random";
  int64_t stride = 0;
  double from = 0;
  double to = 1;
  double max_failed_fraction = 0.1;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("path", path, "folder with videos/CAMERA/NAME.mp4");
    v("cameras", cameras,
      "folders below videos/ in the order of the views, each FOLDER=CAMERA: front_wide, "
      "cross_right, rear_right, rear, rear_left, cross_left, front_tele or a number (left out: "
      "FOLDER is the camera's name)");
    v("front_caption_only", front_caption_only,
      "text of the first camera alone; the other views have none (zeros)");
    v("text_tokens", text_tokens, "tokens of each view's text: shorter ones are filled with zeros");
    v("control", control,
      "control video of each camera: edge or blur, made from its video, or a folder beside videos/ "
      "(hdmap, depth, ...) with CAMERA/NAME.mp4; several with commas between; empty = none");
    v("control_strength", control_strength,
      "of edge and blur: very_low, low, medium, high, very_high, or random: drawn per sample, the "
      "same for all cameras");
    v("fps", fps, "frames a second to resample to; 0 = every frame of the clip");
    v("num_frames", num_frames, "frames of a window");
    v("height", height, "pixels");
    v("width", width, "pixels");
    v("fit", fit, "crop, pad or stretch to the wanted aspect ratio");
    v("windows", windows,
      "random: one window a clip and epoch, drawn per sample; all: every window, `stride` apart");
    v("stride", stride, "frames between windows; 0 = num_frames for all, 1 for random");
    v("from", from, "start of the part of each clip to use, as a fraction of it");
    v("to", to, "end of that part");
    v("max_failed_fraction", max_failed_fraction, "of the clips that may be left out");
  }
};

/// Throws Error for settings that cannot work, whatever the data.
void validate(const MultiViewDatasetConfig& config, const std::string& where);

class MultiViewDataset : public Dataset {
 public:
  explicit MultiViewDataset(const MultiViewDatasetConfig& config,
                            const std::string& where = "data");

  int64_t size() const override { return static_cast<int64_t>(items_.size()); }
  Sample get(int64_t item, uint64_t seed, int64_t sample_index) override;
  std::string item_name(int64_t item) const override;
  std::vector<std::pair<std::string, std::string>> left_out() const override { return left_out_; }

 private:
  struct View {
    std::filesystem::path video{};
    VideoInfo info{};
    std::string caption{};
    std::filesystem::path text_embeds{};
    std::vector<ControlFile> controls{};  ///< by control; of a made one nothing
  };
  struct Source {
    std::string name{};
    std::vector<View> views{};
    int64_t begin = 0, end = 0;  ///< frames that every view has, at the wanted rate
  };
  struct Item {
    std::size_t source = 0;
    int64_t first = -1;  ///< frame; -1: drawn per sample
  };

  Source open(const std::string& name) const;
  Tensor text_of(const Source& source) const;
  /// The controls of a window, whose views are `frames`, [T, H, W, 3] each.
  Tensor controls_of(const Source& source, const Window& window, const Tensors& frames,
                     modules::Philox& random) const;

  MultiViewDatasetConfig config_;
  std::vector<std::string> folders_, controls_;
  std::vector<int64_t> cameras_;
  std::vector<Source> sources_;
  std::vector<Item> items_;
  std::vector<std::pair<std::string, std::string>> left_out_;
  bool has_text_ = false;
};

}  // namespace cosmos::trainer
