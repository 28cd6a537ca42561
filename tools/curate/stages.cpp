#include "tools/curate/stages.h"

#include <cmath>

#include "modules/hub/safetensors.h"
#include "modules/transnet/shots.h"
#include "tools/curate/features.h"
#include "tools/curate/filter.h"
#include "tools/curate/ids.h"
#include "tools/curate/split.h"
#include "trainer/data/clip_copy.h"
#include "trainer/data/frame_scan.h"
#include "trainer/data/media_writer.h"

namespace cosmos::curate {

namespace fs = std::filesystem;

namespace {

// "path: reason" -> "reason": the path has a column of its own.
std::string without_path(const std::string& what, const std::string& path) {
  return what.rfind(path + ": ", 0) == 0 ? what.substr(path.size() + 2) : what;
}

}  // namespace

void Probe::run(Video& video) {
  Source source{.id = video.id, .path = video.path.string()};
  try {
    source.sha256 = file_sha256(source.path);
    source.bytes = static_cast<int64_t>(fs::file_size(source.path));
    video.info = trainer::probe_video(source.path);
    source.duration_us = video.microseconds(video.info.frames());
    source.info = {{"height", video.info.height}, {"width", video.info.width},
                   {"fps", video.info.fps},       {"frames", video.info.frames()},
                   {"codec", video.info.codec},   {"container", video.info.container}};
    source.stage = "probed";
  } catch (const std::exception& error) {
    source.stage = "failed";
    source.reason = without_path(error.what(), source.path);
  }
  store_.save(source);
}

Analyse::Analyse(const SplitConfig& config) {
  if (config.method == "transnetv2") shots_ = modules::load_transnet(config.weights);
}

void Analyse::run(Video& video) {
  const torch::NoGradGuard no_graph;
  try {
    video.info = trainer::probe_video(video.path);
    FeatureMeter meter(video.info.height, video.info.width);
    modules::ShotScorer scorer([&](const Tensor& window) {
      return torch::sigmoid(shots_->forward(window.unsqueeze(0)).one_hot.flatten());
    });
    trainer::ScanOptions options{.sizes = {analysis_size(video.info)}, .motion_vectors = true};
    if (shots_)
      options.sizes.push_back({.height = modules::kTransNetHeight,
                               .width = modules::kTransNetWidth,
                               .fit = trainer::Fit::kStretch,
                               .filter = trainer::Filter::kBicubic});
    video.frames.reserve(video.info.times.size());
    const trainer::ScanEnd end = trainer::scan_frames(
        video.path, video.info, options, [&](const trainer::ScannedFrame& frame) {
          video.frames.push_back(meter.measure(frame));
          if (shots_) scorer.add(frame.images[1]);
        });
    scorer.finish();
    for (std::size_t n = 0; n < scorer.scores().size(); ++n)
      video.frames[n].shot = scorer.scores()[n];
    video.damage = end.failure;
  } catch (const Error& error) {  // the file changed under us
    video.damage = error.what();
  }
  video.damage = without_path(video.damage, video.path.string());
}

void SaveFrameScores::run(Video& video) {
  if (video.frames.empty()) return;
  std::map<std::string, std::vector<float>> columns;
  for (const FrameFeatures& frame : video.frames) {
    columns["dark"].push_back(static_cast<float>(frame.dark));
    columns["change"].push_back(static_cast<float>(frame.change));
    columns["content"].push_back(static_cast<float>(frame.content));
    columns["sharpness"].push_back(static_cast<float>(frame.sharpness));
    columns["shot"].push_back(static_cast<float>(frame.shot));
    columns["motion"].push_back(frame.patch_motion.empty() ? std::nanf("")
                                                           : static_cast<float>(frame.motion));
  }
  TensorMap scores;
  for (const auto& [name, values] : columns) scores[name] = torch::tensor(values);
  modules::save_safetensors(folder_ / (video.sha256 + ".safetensors"), scores);
}

void Split::run(Video& video) {
  split_video(video, config_);
}

void Filter::run(Video& video) {
  filter_clips(video, config_);
}

void Save::run(Video& video) {
  if (video.segments.empty()) {
    store_.fail_source(video.id, video.damage);
  } else {
    store_.save_segments(video);
  }
}

void ClipStage::run(Video& video) {
  video.segments = store_.segments(video.id);
  for (Segment& clip : video.segments) {
    if (clip.state != State::kKept || !wanted(clip)) continue;
    try {
      process(video, clip);
    } catch (const Error& error) {
      clip.state = State::kFailed;
      clip.reason = failure_;
      clip.detail = without_path(error.what(), video.path.string());
      clip.file.clear();
      store_.update_segments(video.id, {clip});
    }
  }
}

void Write::process(Video& video, Segment& clip) {
  if (video.info.times.empty()) video.info = trainer::probe_video(video.path);
  const std::string file = "videos/" + clip.id + ".mp4";
  const int64_t count = clip.end - clip.first;
  clip.copied = config_.mode == "auto" &&
                trainer::copy_clip(video.path, video.info, clip.first, count, output_ / file);
  if (!clip.copied) {
    std::unique_ptr<trainer::VideoWriter> writer;
    const trainer::ScanEnd end = trainer::scan_frames(
        video.path, video.info,
        {.sizes = {trainer::FrameSize{}}, .first = clip.first, .frames = count},
        [&](const trainer::ScannedFrame& frame) {
          const Tensor& image = frame.images[0];
          if (!writer)
            writer = std::make_unique<trainer::VideoWriter>(
                output_ / file, image.size(0), image.size(1),
                trainer::VideoOptions{
                    .fps = video.info.fps, .codec = config_.codec, .quality = config_.quality});
          writer->add(image.unsqueeze(0));
        });
    require(end.failure.empty() && writer, end.failure);
    writer->finish();
  }
  clip.file = file;
  store_.update_segments(video.id, {clip});
}

}  // namespace cosmos::curate
