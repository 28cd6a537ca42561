#include "tools/curate/cosmos3.h"

#include <filesystem>

#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "tools/curate/caption.h"
#include "tools/curate/publish.h"

namespace cosmos::curate {
namespace {

constexpr int64_t kLongestUs = 61'000'000, kFewestFrames = 61;

/// Why the loader would leave the clip out; empty: it takes it.
std::string fault(const Segment& clip, const std::string& caption) {
  if (caption.empty()) return "no caption";
  if (clip.end_us - clip.begin_us > kLongestUs) return "longer than 61 s";
  if (clip.end - clip.first < kFewestFrames) return "fewer than 61 frames";
  return "";
}

Json line_of(const Source& source, const Segment& clip, const std::string& caption) {
  const int64_t frames = clip.end - clip.first;
  Json window = {{"start_frame", 0},
                 {"end_frame", frames - 1},
                 {"temporal_interval", 1},
                 {"caption", caption}};
  const Json parsed = Json::parse(caption, nullptr, /*allow_exceptions=*/false);
  if (parsed.is_object()) window["caption_json"] = parsed;
  return {{"uuid", clip.id},
          {"duration", static_cast<double>(clip.end_us - clip.begin_us) / 1e6},
          {"width", source.info.value("width", 0)},
          {"height", source.info.value("height", 0)},
          {"framerate", source.info.value("fps", 0.0)},
          {"nb_frames", frames},
          {"vision_path", clip.file},
          {"t2w_windows", {window}}};
}

}  // namespace

void write_cosmos3(Store& store, const Config& config) {
  if (!config.outputs.cosmos3) return;
  const std::filesystem::path output = config.output;
  std::string lines;
  int64_t kept = 0;
  std::map<std::string, int64_t> left_out;
  for (const Source& source : store.sources("analysed"))
    for (const Segment& clip : store.segments(source.id)) {
      if (clip.state != State::kKept) continue;
      const std::string caption = caption_of(store, config, clip);
      const std::string reason = fault(clip, caption);
      if (!reason.empty()) {
        ++left_out[reason];
        continue;
      }
      ++kept;
      lines += json_line(line_of(source, clip, caption));
    }
  modules::write_file(output / "cosmos3.jsonl", lines);
  modules::write_json(output / "cosmos3.summary.json", {{"clips", kept}, {"left_out", left_out}});
}

}  // namespace cosmos::curate
