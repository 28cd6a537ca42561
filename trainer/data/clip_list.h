#pragma once

// Which clips a path names, and what lies beside them.

#include <filesystem>
#include <string>
#include <vector>

#include "modules/core/tensor.h"

namespace cosmos::trainer {

/// One clip: a video file, or precomputed latents, or both.
struct Clip {
  std::string name;             ///< for messages: path below the dataset's folder
  std::filesystem::path video;  ///< empty when there are only latents
  std::string caption;
  std::filesystem::path text_embeds;  ///< safetensors file; empty without
  std::filesystem::path latents;      ///< safetensors file; empty without
  std::filesystem::path actions{};    ///< a robot's annotation file; empty without
};

/// Whether the file's ending is that of a video (.mp4, .mov, .mkv, ...).
bool is_video(const std::filesystem::path& path);

/// The caption of the clip `name` (without its ending) in a folder: `metas/<name>.txt`, or
/// `captions/<name>.json` ({"caption": ...} or {MODEL: {"long": ...}}); "" without either.
std::string caption_in(const std::filesystem::path& folder, const std::string& name);

/// Clips of
///   - a folder: `videos/*` (or video files right inside), captions in `metas/<name>.txt`
///     or `captions/<name>.json` ({"caption": ...} or {MODEL: {"long": ...}}), embeddings in
///     `text_embeds/<name>.safetensors`, latents in `latents/<name>.safetensors` (the layout of
///     Cosmos Predict2 post-training, with safetensors where it has pickles);
///   - a list: a .txt file with one video a line, or a .jsonl file of objects with `video` and
///     `caption`; relative paths count from the list's folder;
///   - a video file.
/// `captions` ("" or a .jsonl file of objects with `video` and `caption`) overrules metas/;
/// `default_caption` serves clips without any. Sorted by name, lists in their own order. Throws
/// Error when there is nothing; files named are not opened.
std::vector<Clip> list_clips(const std::filesystem::path& path,
                             const std::filesystem::path& captions,
                             const std::string& default_caption, const std::string& where);

/// Clips of a robot's annotation files (trainer/data/robot_actions.h), `folder`/*.json below
/// `root`. The video is the file's `videos`[camera] below `root`, or videos/<name>.*, the caption
/// its first of `texts` or metas/<name>.txt. Throws Error naming a file that leads to no video.
std::vector<Clip> list_annotated_clips(const std::filesystem::path& root, const std::string& folder,
                                       int64_t camera, const std::string& default_caption,
                                       const std::string& where);

/// The tensor `name` of a safetensors file, or its only one.
Tensor load_clip_tensor(const std::filesystem::path& path, const std::string& name);

}  // namespace cosmos::trainer
