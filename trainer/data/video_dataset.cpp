#include "trainer/data/video_dataset.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <thread>

#include "modules/core/fields.h"
#include "modules/hub/safetensors.h"

namespace cosmos::trainer {
namespace {

namespace fs = std::filesystem;

Fit fit_of(const std::string& name) {
  return name == "crop" ? Fit::kCrop : name == "pad" ? Fit::kPad : Fit::kStretch;
}

void require_one_of(const std::string& value, const std::vector<std::string>& allowed,
                    const std::string& where) {
  std::string list;
  for (const std::string& word : allowed) list += (list.empty() ? "" : ", ") + word;
  const std::string near = modules::nearest(value, allowed);
  require(std::find(allowed.begin(), allowed.end(), value) != allowed.end(), where, ": \"", value,
          "\" is none of ", list, near.empty() ? "" : " (did you mean " + near + "?)");
}

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

// Calls `body(i)` for i < count on a few threads; body must not throw.
template <typename Body>
void in_parallel(std::size_t count, Body&& body) {
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < count; i = next++) body(i);
  };
  const std::size_t helpers = std::min<std::size_t>(
      {count, 8, std::max<std::size_t>(1, std::thread::hardware_concurrency())});
  std::vector<std::thread> threads;
  for (std::size_t i = 1; i < helpers; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

void validate(const VideoDatasetConfig& c, const std::string& where) {
  using modules::join_path;
  require(!c.path.empty(), join_path(where, "path"),
          ": expected a folder or a video file, got none");
  require_one_of(c.fit, {"crop", "pad", "stretch"}, join_path(where, "fit"));
  require_one_of(c.windows, {"random", "all"}, join_path(where, "windows"));
  require(c.fps >= 0 && c.fps <= 1000, join_path(where, "fps"), ": expected 0 to 1000, got ",
          c.fps);
  require(c.num_frames >= 1, join_path(where, "num_frames"), ": expected at least 1, got ",
          c.num_frames);
  require(c.stride >= 0, join_path(where, "stride"), ": expected 0 or more, got ", c.stride);
  require(c.from >= 0 && c.from < c.to && c.to <= 1, join_path(where, "from"),
          ", to: expected 0 <= "
          "from < to <= 1, got ",
          c.from, " and ", c.to);
  require(c.max_failed_fraction >= 0 && c.max_failed_fraction <= 1,
          join_path(where, "max_failed_fraction"), ": expected 0 to 1, got ",
          c.max_failed_fraction);
  require(c.cache_mb >= 0, join_path(where, "cache_mb"), ": expected 0 or more, got ", c.cache_mb);
  validate_control(c.control, c.control_strength, where);
  require(c.camera >= 0, join_path(where, "camera"), ": expected 0 or more, got ", c.camera);
  require(c.actions.empty() || (!c.horizontal_flip && c.num_frames > 1),
          join_path(where, "actions"), ": go with windows of two frames or more, not mirrored ",
          "(horizontal_flip): the robot would move the other way");
  const auto side = [](int64_t x) { return x >= 1 && x <= 16384; };
  if (c.buckets.empty()) {
    require(side(c.height) && side(c.width), join_path(where, "height"),
            ", width: expected 1 to 16384 pixels (or a list of buckets), got ", c.height, " and ",
            c.width);
    return;
  }
  require(c.height == 0 && c.width == 0, join_path(where, "buckets"),
          ": stands in the place of height and width: leave those out");
  for (const std::vector<int64_t>& b : c.buckets)
    require(b.size() == 2 && side(b[0]) && side(b[1]), join_path(where, "buckets"),
            ": expected pairs [height, width] of 1 to 16384 pixels");
}

VideoDataset::VideoDataset(const VideoDatasetConfig& config, const std::string& where)
    : config_(config) {
  validate(config_, where);
  open_all(config_.actions.empty()
               ? list_clips(config_.path, config_.captions, config_.caption, where)
               : list_annotated_clips(config_.path, config_.actions, config_.camera,
                                      config_.caption, where),
           where);
  bucket_latents();
  int64_t bytes = 0;
  for (std::size_t s = 0; s < sources_.size(); ++s) {
    const Source& source = sources_[s];
    if (!source.clip.latents.empty() || config_.windows == "random") {
      items_.push_back({s, -1});
    } else {
      const int64_t stride = config_.stride > 0 ? config_.stride : config_.num_frames;
      for (int64_t t = source.begin; t + config_.num_frames <= source.end; t += stride)
        items_.push_back({s, t});
    }
    if (source.clip.latents.empty())
      bytes += (source.end - source.begin) * source.size.height * source.size.width * 3;
  }
  if (config_.cache_mb > 0 && bytes <= config_.cache_mb << 20)
    for (std::size_t s = 0; s < sources_.size(); ++s) cache_.push_back(std::make_unique<Cached>());
}

void VideoDataset::open_all(const std::vector<Clip>& clips, const std::string& where) {
  std::vector<Source> opened(clips.size());
  in_parallel(clips.size(), [&](std::size_t i) {
    try {
      opened[i] = open(clips[i]);
    } catch (const std::exception& error) {
      opened[i].clip = clips[i];
      opened[i].failure = first_line(error.what());
    }
  });
  for (Source& source : opened) {
    if (source.failure.empty()) {
      sources_.push_back(std::move(source));
    } else {
      left_out_.emplace_back(source.clip.name, source.failure);
    }
  }
  if (left_out_.empty()) return;
  if (clips.size() == 1) fail(where, ": ", left_out_[0].second);
  std::string list;
  for (std::size_t i = 0; i < std::min<std::size_t>(left_out_.size(), 10); ++i)
    list += (i ? "; " : "") + left_out_[i].second;
  const double allowed = config_.max_failed_fraction * static_cast<double>(clips.size());
  require(!sources_.empty() && static_cast<double>(left_out_.size()) <= allowed, where, ": ",
          left_out_.size(), " of ", clips.size(), " clips cannot be used (max_failed_fraction is ",
          config_.max_failed_fraction, "): ", list, left_out_.size() > 10 ? "; ..." : "");
}

VideoDataset::Source VideoDataset::open(const Clip& clip) const {
  Source source{.clip = clip};
  if (!config_.use_latents || !config_.control.empty()) source.clip.latents.clear();
  if (!clip.text_embeds.empty())
    require(fs::exists(clip.text_embeds), clip.text_embeds.string(), ": ", clip.name,
            " has no text embeddings, though other clips may (write them, or remove the folder)");
  if (!source.clip.latents.empty()) {
    source.latents_shape = load_clip_tensor(source.clip.latents, "latents").sizes().vec();
    return source;
  }
  require(!clip.video.empty(), clip.name, ": has latents only, and use_latents is off");
  source.info = probe_video(clip.video);
  if (!clip.actions.empty()) open_actions(source);
  const std::vector<double> times = timeline(source.info, config_.fps);
  // A time beyond the last state would show a frame that no action leads to.
  const auto end =
      source.robot ? std::upper_bound(times.begin(), times.end(), source.info.times.back() + 1e-9)
                   : times.end();
  const int64_t frames = end - times.begin();
  source.begin = std::llround(config_.from * static_cast<double>(frames));
  source.end = std::llround(config_.to * static_cast<double>(frames));
  const int64_t usable = source.end - source.begin;
  if (usable < config_.num_frames) {
    const double rate = config_.fps > 0 ? config_.fps : source.info.fps;
    fail(clip.video.string(), ": too short: ", usable, " of its ", frames, " frames at ", rate,
         " fps lie between from ", config_.from, " and to ", config_.to, ", a window has ",
         config_.num_frames, " (num_frames: set ", std::max<int64_t>(usable, 1),
         " or less, or raise fps, or widen from and to)");
  }
  choose_size(source);
  for (const std::string& control : control_names(config_.control)) {
    if (is_computed_control(control)) continue;
    const fs::path file = clip.video.parent_path().parent_path() / control / clip.video.filename();
    source.controls[control] = open_control(file, control, clip.name, config_.fps, source.end);
  }
  return source;
}

// Frames without a state count as not there.
void VideoDataset::open_actions(Source& source) const {
  source.robot = RobotActions::read(
      source.clip.actions, {.pose = config_.action_scale, .gripper = config_.gripper_scale});
  auto& times = source.info.times;
  times.resize(std::min(times.size(), static_cast<std::size_t>(source.robot->frames())));
}

Tensor VideoDataset::actions(const Source& source, int64_t first) const {
  const std::vector<double>& all = source.info.times;
  const std::vector<double> times = timeline(source.info, config_.fps);
  std::vector<int64_t> frames;
  for (int64_t i = first; i < first + config_.num_frames; ++i) {
    // The frame nearest in time, the earlier of two: as the reader takes them.
    const double time = times.at(static_cast<std::size_t>(i));
    auto next = std::lower_bound(all.begin(), all.end(), time);
    if (next == all.end() || (next != all.begin() && time - next[-1] <= *next - time)) --next;
    frames.push_back(config_.fps > 0 ? next - all.begin() : i);
  }
  return source.robot->between(frames);
}

void VideoDataset::choose_size(Source& source) const {
  source.size = {config_.height, config_.width, fit_of(config_.fit)};
  if (config_.buckets.empty()) return;
  const VideoInfo& info = source.info;
  const double aspect =
      static_cast<double>(info.width) * info.pixel_aspect / static_cast<double>(info.height);
  double best = std::numeric_limits<double>::infinity();
  for (std::size_t b = 0; b < config_.buckets.size(); ++b) {
    const auto& bucket = config_.buckets[b];
    const double wanted = static_cast<double>(bucket[1]) / static_cast<double>(bucket[0]);
    const double distance = std::abs(std::log(aspect / wanted));
    if (distance >= best) continue;
    best = distance;
    source.bucket = static_cast<int64_t>(b);
    source.size.height = bucket[0];
    source.size.width = bucket[1];
  }
}

void VideoDataset::bucket_latents() {
  // Latents keep their stored shape: equal shapes share a bucket, numbered after the videos' own.
  std::map<std::vector<int64_t>, int64_t> shapes;
  for (Source& source : sources_) {
    if (source.clip.latents.empty()) continue;
    const int64_t next = static_cast<int64_t>(config_.buckets.size() + 1 + shapes.size());
    source.bucket = shapes.emplace(source.latents_shape, next).first->second;
  }
}

const VideoDataset::Source& VideoDataset::source(int64_t item) const {
  return sources_[items_.at(static_cast<std::size_t>(item)).source];
}

std::string VideoDataset::item_name(int64_t item) const {
  const Item& entry = items_.at(static_cast<std::size_t>(item));
  const std::string& name = sources_[entry.source].clip.name;
  return entry.first < 0 ? name : name + " from frame " + std::to_string(entry.first);
}

Tensor VideoDataset::window(std::size_t index, int64_t first) {
  const Source& source = sources_[index];
  const auto read = [&](int64_t begin, int64_t frames) {
    return read_video(source.clip.video, source.info,
                      {.first = begin, .frames = frames, .fps = config_.fps, .size = source.size});
  };
  if (cache_.empty()) return read(first, config_.num_frames);
  Cached& cached = *cache_[index];
  std::lock_guard lock(cached.mutex);
  if (!cached.frames.defined()) cached.frames = read(source.begin, source.end - source.begin);
  return cached.frames.narrow(0, first - source.begin, config_.num_frames);
}

Tensor VideoDataset::control_window(const Source& source, const std::string& control, int64_t first,
                                    const Tensor& frames, modules::Philox& random) const {
  const auto file = source.controls.find(control);
  if (file == source.controls.end())
    return computed_control(control, config_.control_strength, frames, random);
  return read_video(
      file->second.path, file->second.info,
      {.first = first, .frames = config_.num_frames, .fps = config_.fps, .size = source.size});
}

Sample VideoDataset::get(int64_t item, uint64_t seed, int64_t sample_index) {
  const Item& entry = items_.at(static_cast<std::size_t>(item));
  const Source& source = sources_[entry.source];
  modules::Philox random(seed, modules::Purpose::kWindow, static_cast<uint64_t>(sample_index));
  Sample sample;
  sample.index = sample_index;
  sample.text["caption"] = source.clip.caption;
  sample.text["path"] = item_name(item);
  if (!source.clip.text_embeds.empty()) {
    Tensor embeds = load_clip_tensor(source.clip.text_embeds, "text_embeds");
    if (embeds.dim() == 3 && embeds.size(0) == 1) embeds = embeds[0];
    require(embeds.dim() == 2, source.clip.text_embeds.string(),
            ": expected text embeddings [S, D], got ", embeds.sizes());
    sample.tensors["text_embeds"] = embeds.clone();
  }
  if (!source.clip.latents.empty()) {
    Tensor latents = load_clip_tensor(source.clip.latents, "latents");
    if (latents.dim() == 5 && latents.size(0) == 1) latents = latents[0];
    require(latents.dim() == 4, source.clip.latents.string(),
            ": expected latents [C, T, H, W], got ", latents.sizes());
    sample.tensors["latents"] = latents.clone();
    return sample;
  }
  const int64_t stride = std::max<int64_t>(config_.stride, 1);
  const uint64_t choices =
      static_cast<uint64_t>((source.end - source.begin - config_.num_frames) / stride + 1);
  const int64_t drawn = source.begin + stride * static_cast<int64_t>(random.below(choices));
  const int64_t first = entry.first < 0 ? drawn : entry.first;
  const Tensor frames = window(entry.source, first);
  const bool flip = config_.horizontal_flip && random.below(2) == 1;
  const auto oriented = [flip](const Tensor& frames) {
    const Tensor video = channels_first(frames);
    return flip ? video.flip(3) : video;
  };
  sample.tensors["video"] = oriented(frames);
  Tensors controls;
  for (const std::string& control : control_names(config_.control))
    controls.push_back(oriented(control_window(source, control, first, frames, random)));
  if (!controls.empty()) sample.tensors["control"] = torch::cat(controls);
  if (source.robot) sample.tensors["action"] = actions(source, first);
  const double rate = config_.fps > 0 ? config_.fps : source.info.fps;
  sample.tensors["fps"] = torch::tensor(static_cast<float>(rate));
  return sample;
}

}  // namespace cosmos::trainer
