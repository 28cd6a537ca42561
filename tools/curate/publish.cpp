#include "tools/curate/publish.h"

#include <filesystem>

#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "tools/curate/caption.h"

namespace cosmos::curate {
namespace {

namespace fs = std::filesystem;

Json source_json(const Source& source) {
  return {{"source_video", source.path},
          {"source_sha256", source.sha256},
          {"duration_span", {0.0, static_cast<double>(source.duration_us) / 1e6}},
          {"state", source.stage == "duplicate" ? "dropped" : "failed"},
          {"reason", source.stage == "duplicate" ? "duplicate file" : "unreadable file"},
          {"detail", source.reason}};
}

}  // namespace

Json clip_json(const Source& source, const Segment& clip) {
  Json json = {{"span_uuid", clip.id},
               {"source_video", source.path},
               {"source_sha256", source.sha256},
               {"duration_span",
                {static_cast<double>(clip.begin_us) / 1e6, static_cast<double>(clip.end_us) / 1e6}},
               {"first_frame", clip.first},
               {"num_frames", clip.end - clip.first},
               {"state", state_name(clip.state)},
               {"height", source.info.value("height", 0)},
               {"width", source.info.value("width", 0)},
               {"framerate", source.info.value("fps", 0.0)},
               {"scores", clip.scores}};
  if (clip.state == State::kKept) {
    json["video"] = clip.file;
    json["stream_copy"] = clip.copied;
  } else {
    json["reason"] = clip.reason;
  }
  return json;
}

std::string json_line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Json part_json(Store& store, const Config& config, const Source& source, const Segment& clip) {
  Json json = clip_json(source, clip);
  const std::string caption =
      clip.state == State::kKept ? caption_of(store, config, clip) : std::string();
  if (!caption.empty()) json["caption"] = caption;
  if (clip.state == State::kFailed)
    json["detail"] = clip.detail.empty() ? source.reason : clip.detail;
  return json;
}

void publish(Store& store, const Config& config, const Account& account) {
  const fs::path output = config.output;
  std::string kept, others;
  for (const Source& source : store.sources()) {
    if (source.stage != "analysed") {
      others += json_line(source_json(source));
      continue;
    }
    for (const Segment& clip : store.segments(source.id)) {
      const Json json = part_json(store, config, source, clip);
      if (clip.state != State::kKept)  // it may have been, before more input came
        for (const std::string& file :
             {"videos/" + clip.id + ".mp4", "metas/" + clip.id + ".txt",
              "latents/" + clip.id + ".safetensors", "text_embeds/" + clip.id + ".safetensors",
              "cosmos_curate/clips/" + clip.id + ".mp4"})
          fs::remove(output / file);
      if (json.contains("caption"))
        modules::write_file(output / "metas" / (clip.id + ".txt"),
                            json["caption"].get<std::string>() + "\n");
      (clip.state == State::kKept ? kept : others) += json_line(json);
    }
  }
  modules::write_file(output / "clips.jsonl", kept);
  modules::write_file(output / "dropped.jsonl", others);
  modules::write_json(output / "summary.json", account.json());
}

}  // namespace cosmos::curate
