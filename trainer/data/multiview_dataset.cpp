#include "trainer/data/multiview_dataset.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "modules/core/fields.h"
#include "modules/core/random.h"
#include "modules/pipeline/views.h"
#include "trainer/data/clip_list.h"

namespace cosmos::trainer {
namespace {

namespace fs = std::filesystem;
using modules::join_path;

// FOLDER=CAMERA
std::pair<std::string, int64_t> parse_camera(const std::string& text, const std::string& where) {
  const auto equal = text.rfind('=');
  const std::string camera = equal == std::string::npos ? text : text.substr(equal + 1);
  return {text.substr(0, equal), modules::camera_index(camera, where)};
}

Fit fit_of(const std::string& name) {
  return name == "crop" ? Fit::kCrop : name == "pad" ? Fit::kPad : Fit::kStretch;
}

// [S, D] -> [tokens, D], cut or filled with zeros.
Tensor with_tokens(const Tensor& embeds, int64_t tokens) {
  const int64_t own = std::min(embeds.size(0), tokens);
  return torch::constant_pad_nd(embeds.slice(0, 0, own), {0, 0, 0, tokens - own});
}

// Names without their ending, sorted.
std::vector<std::string> clip_names(const fs::path& folder, const std::string& where) {
  std::error_code error;
  std::set<std::string> names;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (it->path().filename().string()[0] != '.' && is_video(it->path()))
      names.insert(it->path().filename().string());
  require(!error, where, ": ", folder.string(), " cannot be listed: ", error.message(),
          " (expected videos/CAMERA/NAME.mp4)");
  require(!names.empty(), where, ": ", folder.string(), " holds no videos");
  return {names.begin(), names.end()};
}

}  // namespace

void validate(const MultiViewDatasetConfig& c, const std::string& where) {
  require(!c.path.empty(), join_path(where, "path"), ": expected a folder, got none");
  require(!c.cameras.empty(), join_path(where, "cameras"),
          ": expected the views' folders, like [\"pinhole_front=front_wide\"], got none");
  std::set<int64_t> seen;
  for (const std::string& text : c.cameras) {
    const auto [folder, camera] = parse_camera(text, join_path(where, "cameras"));
    require(!folder.empty() && seen.insert(camera).second, join_path(where, "cameras"), ": ", text,
            ": expected FOLDER=CAMERA, each camera once");
  }
  const auto one_of = [&](const std::string& value, std::initializer_list<const char*> allowed,
                          const char* key) {
    std::string list;
    for (const char* word : allowed) list += (list.empty() ? "" : ", ") + std::string(word);
    require(std::find(allowed.begin(), allowed.end(), value) != allowed.end(),
            join_path(where, key), ": \"", value, "\" is none of ", list);
  };
  one_of(c.fit, {"crop", "pad", "stretch"}, "fit");
  one_of(c.windows, {"random", "all"}, "windows");
  validate_control(c.control, c.control_strength, where);
  require(c.fps >= 0 && c.fps <= 1000, join_path(where, "fps"), ": expected 0 to 1000, got ",
          c.fps);
  require(c.num_frames >= 1, join_path(where, "num_frames"), ": expected at least 1, got ",
          c.num_frames);
  require(c.text_tokens >= 1, join_path(where, "text_tokens"), ": expected at least 1, got ",
          c.text_tokens);
  require(c.stride >= 0, join_path(where, "stride"), ": expected 0 or more, got ", c.stride);
  require(c.from >= 0 && c.from < c.to && c.to <= 1, join_path(where, "from"),
          ", to: expected 0 <= from < to <= 1, got ", c.from, " and ", c.to);
  require(c.max_failed_fraction >= 0 && c.max_failed_fraction <= 1,
          join_path(where, "max_failed_fraction"), ": expected 0 to 1, got ",
          c.max_failed_fraction);
  const auto side = [](int64_t x) { return x >= 1 && x <= 16384; };
  require(side(c.height) && side(c.width), join_path(where, "height"),
          ", width: expected 1 to 16384 pixels, got ", c.height, " and ", c.width);
}

MultiViewDataset::MultiViewDataset(const MultiViewDatasetConfig& config, const std::string& where)
    : config_(config) {
  validate(config_, where);
  for (const std::string& text : config_.cameras) {
    const auto [folder, camera] = parse_camera(text, join_path(where, "cameras"));
    folders_.push_back(folder);
    cameras_.push_back(camera);
  }
  controls_ = control_names(config_.control);
  has_text_ = fs::is_directory(fs::path(config_.path) / "text_embeds");
  const auto names =
      clip_names(fs::path(config_.path) / "videos" / folders_[0], join_path(where, "path"));
  for (const std::string& name : names) {
    try {
      sources_.push_back(open(name));
    } catch (const std::exception& error) {
      const std::string reason = error.what();
      left_out_.emplace_back(name, reason.substr(0, reason.find('\n')));
    }
  }
  const double allowed = config_.max_failed_fraction * static_cast<double>(names.size());
  require(!sources_.empty() && static_cast<double>(left_out_.size()) <= allowed, where, ": ",
          left_out_.size(), " of ", names.size(), " clips cannot be used (max_failed_fraction is ",
          config_.max_failed_fraction, "): ", left_out_.empty() ? "" : left_out_[0].second);
  const int64_t stride = config_.stride > 0 ? config_.stride : config_.num_frames;
  for (std::size_t s = 0; s < sources_.size(); ++s) {
    if (config_.windows == "random") {
      items_.push_back({s, -1});
      continue;
    }
    for (int64_t t = sources_[s].begin; t + config_.num_frames <= sources_[s].end; t += stride)
      items_.push_back({s, t});
  }
}

MultiViewDataset::Source MultiViewDataset::open(const std::string& name) const {
  const fs::path root = config_.path, stem = fs::path(name).stem();
  Source source{.name = name};
  int64_t frames = std::numeric_limits<int64_t>::max();
  for (std::size_t v = 0; v < folders_.size(); ++v) {
    View view{.video = root / "videos" / folders_[v] / name};
    require(fs::exists(view.video), view.video.string(), ": is not there, though ", folders_[0],
            " has it");
    view.info = probe_video(view.video);
    frames = std::min(frames, static_cast<int64_t>(timeline(view.info, config_.fps).size()));
    const bool said = v == 0 || !config_.front_caption_only;
    if (said) view.caption = caption_in(root, (fs::path(folders_[v]) / stem).string());
    if (said && has_text_) {
      view.text_embeds = root / "text_embeds" / folders_[v] / (stem.string() + ".safetensors");
      require(fs::exists(view.text_embeds), view.text_embeds.string(), ": is not there, though ",
              "text_embeds/ is (write it, or set front_caption_only)");
    }
    source.views.push_back(std::move(view));
  }
  source.begin = std::llround(config_.from * static_cast<double>(frames));
  source.end = std::llround(config_.to * static_cast<double>(frames));
  require(source.end - source.begin >= config_.num_frames, name, ": too short: every camera has ",
          source.end - source.begin, " frames between from and to, a window has ",
          config_.num_frames, " (num_frames)");
  for (std::size_t v = 0; v < folders_.size(); ++v)
    for (const std::string& control : controls_)
      source.views[v].controls.push_back(is_computed_control(control)
                                             ? ControlFile{}
                                             : open_control(root / control / folders_[v] / name,
                                                            control, folders_[v] + "/" + name,
                                                            config_.fps, source.end));
  return source;
}

std::string MultiViewDataset::item_name(int64_t item) const {
  const Item& entry = items_.at(static_cast<std::size_t>(item));
  const std::string& name = sources_[entry.source].name;
  return entry.first < 0 ? name : name + " from frame " + std::to_string(entry.first);
}

Tensor MultiViewDataset::text_of(const Source& source) const {
  Tensors texts;
  for (const View& view : source.views) {
    if (view.text_embeds.empty()) {
      texts.push_back(torch::zeros_like(texts.at(0)));
      continue;
    }
    Tensor embeds = load_clip_tensor(view.text_embeds, "text_embeds");
    if (embeds.dim() == 3 && embeds.size(0) == 1) embeds = embeds[0];
    require(embeds.dim() == 2, view.text_embeds.string(), ": expected text embeddings [S, D], got ",
            embeds.sizes());
    texts.push_back(with_tokens(embeds, config_.text_tokens));
  }
  return torch::cat(texts);
}

Tensor MultiViewDataset::controls_of(const Source& source, const Window& window,
                                     const Tensors& frames, modules::Philox& random) const {
  Tensors controls;
  for (std::size_t k = 0; k < controls_.size(); ++k) {
    Tensors views;
    if (is_computed_control(controls_[k])) {
      // One call, so that one strength is drawn for all cameras.
      const Tensor made =
          computed_control(controls_[k], config_.control_strength, torch::cat(frames), random);
      views = made.split(window.frames);
    } else {
      for (const View& view : source.views)
        views.push_back(read_video(view.controls[k].path, view.controls[k].info, window));
    }
    for (const Tensor& view : views) controls.push_back(channels_first(view));
  }
  return torch::cat(controls);
}

Sample MultiViewDataset::get(int64_t item, uint64_t seed, int64_t sample_index) {
  const Item& entry = items_.at(static_cast<std::size_t>(item));
  const Source& source = sources_[entry.source];
  modules::Philox random(seed, modules::Purpose::kWindow, static_cast<uint64_t>(sample_index));
  const int64_t stride = std::max<int64_t>(config_.stride, 1);
  const auto choices =
      static_cast<uint64_t>((source.end - source.begin - config_.num_frames) / stride + 1);
  const int64_t drawn = source.begin + stride * static_cast<int64_t>(random.below(choices));
  const Window window{.first = entry.first < 0 ? drawn : entry.first,
                      .frames = config_.num_frames,
                      .fps = config_.fps,
                      .size = {config_.height, config_.width, fit_of(config_.fit)}};
  Sample sample;
  sample.index = sample_index;
  sample.text["path"] = item_name(item);
  sample.text["caption"] = "";
  Tensors frames, views;
  for (const View& view : source.views) {
    frames.push_back(read_video(view.video, view.info, window));
    views.push_back(channels_first(frames.back()));
    std::string& caption = sample.text["caption"];
    if (caption.empty()) caption = view.caption;
  }
  sample.tensors["video"] = torch::cat(views);
  if (!controls_.empty()) sample.tensors["control"] = controls_of(source, window, frames, random);
  sample.tensors["view_indices"] = torch::tensor(cameras_);
  if (has_text_) sample.tensors["text_embeds"] = text_of(source);
  const double rate = config_.fps > 0 ? config_.fps : source.views[0].info.fps;
  sample.tensors["fps"] = torch::tensor(static_cast<float>(rate));
  return sample;
}

}  // namespace cosmos::trainer
