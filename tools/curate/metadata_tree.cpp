#include "tools/curate/metadata_tree.h"

#include <filesystem>

#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "tools/curate/caption.h"
#include "tools/curate/publish.h"

namespace cosmos::curate {
namespace {

namespace fs = std::filesystem;

void link_clip(const fs::path& from, const fs::path& to) {
  std::error_code error;
  if (fs::exists(to, error)) return;
  fs::create_hard_link(from, to, error);
  if (error) fs::copy_file(from, to);  // another file system, or one without links
}

/// The fields of metas/v0, as far as they are measured here; null what is not.
Json meta_json(const Source& source, const Segment& clip, const std::string& caption,
               const fs::path& output) {
  const bool kept = clip.state == State::kKept;
  const int64_t frames = clip.end - clip.first;
  Json windows = Json::array();
  if (kept && !caption.empty())
    windows.push_back({{"start_frame", 0}, {"end_frame", frames}, {"caption", caption}});
  return {{"span_uuid", clip.id},
          {"source_video", source.path},
          {"duration_span",
           {static_cast<double>(clip.begin_us) / 1e6, static_cast<double>(clip.end_us) / 1e6}},
          {"width_source", source.info.value("width", 0)},
          {"height_source", source.info.value("height", 0)},
          {"framerate_source", source.info.value("fps", 0.0)},
          {"clip_location", kept ? Json("clips/" + clip.id + ".mp4") : Json()},
          {"width", source.info.value("width", 0)},
          {"height", source.info.value("height", 0)},
          {"framerate", source.info.value("fps", 0.0)},
          {"num_frames", frames},
          {"num_bytes", kept ? Json(fs::file_size(output / clip.file)) : Json()},
          {"motion_score",
           {{"global_mean", clip.scores.value("motion", Json())},
            {"per_patch_min_256", clip.scores.value("patch_motion", Json())}}},
          {"aesthetic_score", clip.scores.value("aesthetic", Json())},
          {"windows", windows},
          {"filtered_windows", Json::array()},
          {"valid", kept},
          {"has_caption", !windows.empty()},
          {"errors", kept ? Json::object() : Json{{"filter", clip.reason}}}};
}

}  // namespace

void write_metadata_tree(Store& store, const Config& config, const Account& account) {
  if (!config.outputs.cosmos_curate) return;
  const fs::path output = config.output, root = output / "cosmos_curate";
  fs::create_directories(root / "clips");
  for (const Source& source : store.sources()) {
    const std::string name = source.sha256.empty() ? std::to_string(source.id) : source.sha256;
    if (source.stage == "failed")
      modules::write_file(root / "video_errors" / (name + ".json"),
                          json_line({{"video", source.path}, {"error", source.reason}}));
    if (source.stage != "analysed") continue;
    Json clips = Json::array(), filtered = Json::array();
    for (const Segment& clip : store.segments(source.id)) {
      const bool kept = clip.state == State::kKept;
      if (kept) link_clip(output / clip.file, root / "clips" / (clip.id + ".mp4"));
      modules::write_file(
          root / "metas/v0" / (clip.id + ".json"),
          json_line(meta_json(source, clip, caption_of(store, config, clip), output)));
      (kept ? clips : filtered).push_back(clip.id);
    }
    modules::write_file(root / "processed_videos" / (name + ".json"),
                        json_line({{"video", source.path},
                                   {"height", source.info.value("height", 0)},
                                   {"width", source.info.value("width", 0)},
                                   {"framerate", source.info.value("fps", 0.0)},
                                   {"num_frames", source.info.value("frames", 0)},
                                   {"duration", static_cast<double>(source.duration_us) / 1e6},
                                   {"video_codec", source.info.value("codec", "")},
                                   {"num_total_clips", clips.size() + filtered.size()},
                                   {"clips", clips},
                                   {"filtered_clips", filtered}}));
  }
  modules::write_json(root / "summary.json", account.json());
}

}  // namespace cosmos::curate
