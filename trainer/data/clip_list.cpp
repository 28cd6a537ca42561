#include "trainer/data/clip_list.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <map>
#include <set>

#include "modules/core/model.h"
#include "modules/hub/json_file.h"
#include "modules/hub/safetensors.h"

namespace cosmos::trainer {

namespace fs = std::filesystem;

bool is_video(const fs::path& path) {
  static const std::set<std::string> endings{".mp4", ".mov",  ".mkv", ".webm", ".avi", ".m4v",
                                             ".mpg", ".mpeg", ".ts",  ".ivf",  ".ogv", ".gif"};
  std::string ending = path.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return endings.count(ending) > 0;
}

namespace {

std::string read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  require(in.good(), path.string(), ": cannot be read");
  std::string text((std::istreambuf_iterator<char>(in)), {});
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  return text;
}

/// Regular files of a folder with the wanted property, sorted; hidden ones are left out.
template <typename Wanted>
std::vector<fs::path> files_of(const fs::path& folder, Wanted&& wanted) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const fs::path& path = it->path();
    if (path.filename().string()[0] != '.' && wanted(path) && fs::is_regular_file(path, error))
      files.push_back(path);
  }
  require(!error, folder.string(), ": cannot be listed: ", error.message());
  std::sort(files.begin(), files.end());
  return files;
}

/// Lines of a JSONL file as (video, caption).
std::vector<std::pair<std::string, std::string>> read_jsonl(const fs::path& path) {
  std::ifstream in(path);
  require(in.good(), path.string(), ": cannot be read");
  std::vector<std::pair<std::string, std::string>> lines;
  std::string line;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    require(json.is_object() && json.contains("video") && json["video"].is_string() &&
                (!json.contains("caption") || json["caption"].is_string()),
            path.string(), " line ", number,
            ": expected an object like {\"video\": \"a.mp4\", \"caption\": \"...\"}");
    lines.emplace_back(json["video"], json.value("caption", std::string()));
  }
  return lines;
}

// {"caption": TEXT}, or {MODEL: {"long": TEXT, ...}}: the first model's longest.
std::string caption_of(const fs::path& path) {
  const Json json = modules::read_json(path);
  require(json.is_object(), path.string(), ": expected an object like {\"caption\": \"...\"}");
  if (json.contains("caption") && json["caption"].is_string()) return json["caption"];
  for (const auto& [model, texts] : json.items())
    for (const char* length : {"long", "medium", "short"})
      if (texts.is_object() && texts.contains(length) && texts[length].is_string())
        return texts[length];
  fail(path.string(), ": expected {\"caption\": \"...\"}, or {MODEL: {\"long\": \"...\"}}");
}

std::vector<Clip> clips_of_folder(const fs::path& folder) {
  const fs::path videos = fs::is_directory(folder / "videos") ? folder / "videos" : folder;
  std::map<std::string, Clip> clips;  // by stem: what belongs together
  for (const fs::path& path : files_of(videos, is_video)) {
    Clip& clip = clips[path.stem().string()];
    require(clip.video.empty(), videos.string(), ": ", clip.video.filename().string(), " and ",
            path.filename().string(), " would share one caption: rename one");
    clip.video = path;
    clip.name = fs::relative(path, folder).string();
  }
  if (fs::is_directory(folder / "latents")) {
    const auto files = files_of(folder / "latents",
                                [](const fs::path& p) { return p.extension() == ".safetensors"; });
    for (const fs::path& path : files) {
      Clip& clip = clips[path.stem().string()];
      clip.latents = path;
      if (clip.name.empty()) clip.name = fs::relative(path, folder).string();
    }
  }
  std::vector<Clip> list;
  for (auto& [stem, clip] : clips) {
    clip.caption = caption_in(folder, stem);
    if (fs::is_directory(folder / "text_embeds"))
      clip.text_embeds = folder / "text_embeds" / (stem + ".safetensors");
    list.push_back(std::move(clip));
  }
  return list;
}

std::vector<Clip> clips_of_list(const fs::path& path) {
  std::vector<std::pair<std::string, std::string>> lines;
  if (path.extension() == ".jsonl") {
    lines = read_jsonl(path);
  } else {
    std::ifstream in(path);
    require(in.good(), path.string(), ": cannot be read");
    for (std::string line; std::getline(in, line);) {
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (!line.empty() && line[0] != '#') lines.emplace_back(line, "");
    }
  }
  std::vector<Clip> clips;
  for (const auto& [video, caption] : lines)
    clips.push_back({.name = video,
                     .video = path.parent_path() / video,
                     .caption = caption,
                     .text_embeds = {},
                     .latents = {}});
  return clips;
}

// {"videos": [{"video_path": "..."} or "...", ...]}, or the video of the same name.
fs::path annotated_video(const Json& json, const fs::path& root, const fs::path& file,
                         int64_t camera) {
  require(json.is_object(), file.string(), ": expected an object with `state`");
  const auto videos = json.find("videos");
  if (videos == json.end()) {
    for (const fs::path& video : files_of(root / "videos", is_video))
      if (video.stem() == file.stem()) return video;
    fail(file.string(), ": names no `videos`, and videos/ has no ", file.stem().string());
  }
  require(videos->is_array() && camera < static_cast<int64_t>(videos->size()), file.string(),
          ": videos: there is no camera ", camera);
  const Json& video = (*videos)[static_cast<std::size_t>(camera)];
  const Json& path =
      video.is_object() && video.contains("video_path") ? video["video_path"] : video;
  require(path.is_string(), file.string(), ": videos[", camera,
          "]: expected {\"video_path\": TEXT}");
  return root / path.get<std::string>();
}

}  // namespace

std::string caption_in(const fs::path& folder, const std::string& name) {
  const fs::path text = folder / "metas" / (name + ".txt");
  const fs::path json = folder / "captions" / (name + ".json");
  if (fs::exists(text)) return read_text(text);
  return fs::exists(json) ? caption_of(json) : "";
}

std::vector<Clip> list_clips(const fs::path& path, const fs::path& captions,
                             const std::string& default_caption, const std::string& where) {
  std::error_code error;
  require(fs::exists(path, error), where, ".path: ", path.string(), " does not exist");
  std::vector<Clip> clips;
  if (fs::is_directory(path)) {
    clips = clips_of_folder(path);
    require(!clips.empty(), where, ".path: ", path.string(),
            " holds no videos (expected .mp4, .mkv, .webm, .mov or .avi files in it or in its "
            "videos/ folder, or latents/*.safetensors)");
  } else if (path.extension() == ".txt" || path.extension() == ".jsonl") {
    clips = clips_of_list(path);
    require(!clips.empty(), where, ".path: ", path.string(), " lists no videos");
  } else {
    clips.push_back({.name = path.filename().string(),
                     .video = path,
                     .caption = {},
                     .text_embeds = {},
                     .latents = {}});
  }
  if (!captions.empty()) {
    std::map<std::string, std::string> by_name;
    for (auto& [video, caption] : read_jsonl(captions))
      by_name[fs::path(video).filename().string()] = caption;
    for (Clip& clip : clips)
      if (auto found = by_name.find(fs::path(clip.name).filename().string());
          found != by_name.end())
        clip.caption = found->second;
  }
  for (Clip& clip : clips)
    if (clip.caption.empty()) clip.caption = default_caption;
  return clips;
}

std::vector<Clip> list_annotated_clips(const fs::path& root, const std::string& folder,
                                       int64_t camera, const std::string& default_caption,
                                       const std::string& where) {
  require(fs::is_directory(root / folder), where, ".actions: ", (root / folder).string(),
          " is not a folder (of annotation files)");
  const auto files =
      files_of(root / folder, [](const fs::path& path) { return path.extension() == ".json"; });
  require(!files.empty(), where, ".actions: ", (root / folder).string(), " holds no .json files");
  std::vector<Clip> clips;
  for (const fs::path& file : files) {
    const Json json = modules::read_json(file);
    Clip clip{.name = fs::relative(file, root).string(), .actions = file};
    clip.video = annotated_video(json, root, file, camera);
    const auto texts = json.find("texts");
    const fs::path meta = root / "metas" / (file.stem().string() + ".txt");
    if (texts != json.end() && texts->is_array() && !texts->empty() && (*texts)[0].is_string()) {
      clip.caption = (*texts)[0];
    } else if (fs::exists(meta)) {
      clip.caption = read_text(meta);
    }
    if (clip.caption.empty()) clip.caption = default_caption;
    if (fs::is_directory(root / "text_embeds"))
      clip.text_embeds = root / "text_embeds" / (file.stem().string() + ".safetensors");
    clips.push_back(std::move(clip));
  }
  return clips;
}

Tensor load_clip_tensor(const fs::path& path, const std::string& name) {
  const modules::SafetensorsFile file(path);
  if (!file.contains(name) && file.infos().size() == 1)
    return file.get(file.infos().begin()->first);
  return file.get(name);
}

}  // namespace cosmos::trainer
