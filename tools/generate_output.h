#pragma once

// What cosmos-generate writes: the clip, its frames, its tensors and a record.

#include <cmath>
#include <cstdio>
#include <cxxopts.hpp>
#include <filesystem>
#include <fstream>
#include <memory>
#include <unistd.h>
#include <vector>

#include "modules/hub/json_file.h"
#include "modules/hub/safetensors.h"
#include "modules/pipeline/world.h"
#include "ops/core/version.h"
#include "tools/generate_request.h"
#include "tools/generate_views.h"
#include "trainer/checkpoint/crc32c.h"
#include "trainer/data/media_writer.h"

namespace cosmos::tools {

namespace fs = std::filesystem;

inline double mean_change(const Tensor& frames) {
  if (frames.size(0) < 2) return 0;
  const Tensor f = frames.to(torch::kFloat32);
  return (f.slice(0, 1) - f.slice(0, 0, -1)).abs().mean().item<double>();
}

inline double psnr(const Tensor& a, const Tensor& b) {
  const double error =
      (a.to(torch::kFloat64) - b.to(torch::kFloat64)).square().mean().item<double>();
  return 10 * std::log10(255.0 * 255.0 / std::max(error, 1e-10));
}

/// Memory that this process has in the machine's; 0 where the system does not say.
inline int64_t resident_bytes() {
  int64_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

// CRC-32C of every file of the components, by path below the folder.
inline Json checksums(const cxxopts::ParseResult& args) {
  Json sums = Json::object();
  for (const char* option : {"pipeline", "transformer", "vae", "adapter"}) {
    if (!args.count(option)) continue;
    const fs::path root = text_of(args, option);
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
      const std::string extension = entry.path().extension().string();
      if (!entry.is_regular_file() || (extension != ".json" && extension != ".safetensors"))
        continue;
      char text[16];
      std::snprintf(text, sizeof text, "%08x", trainer::crc32c_file(entry.path()));
      sums[std::string(option) + "/" + fs::relative(entry.path(), root).string()] = text;
    }
  }
  return sums;
}

// The clip on its way out, chunk by chunk: what is held does not grow with it, unless its tensors
// are asked for.
class Output {
 public:
  /// `picture`: the class makes pictures, and its tensors have no frames.
  Output(const cxxopts::ParseResult& args, const WorldRequest& request, bool picture)
      : args_(args), path_(text_of(args, "output")), picture_(picture) {
    stem_ = path_.parent_path() / path_.stem();
    int64_t height = *request.height, width = *request.width;
    const trainer::VideoOptions options{.fps = *request.fps};
    if (request.views.defined()) {
      for (int64_t v = 0; v < request.views.size(0); ++v) {
        const std::string camera = camera_name(request.views[v].item<int64_t>());
        view_paths_.push_back(stem_.string() + "-" + camera + path_.extension().string());
        views_.push_back(
            std::make_unique<trainer::VideoWriter>(view_paths_.back(), height, width, options));
      }
      const Tensor grid =
          view_grid(torch::empty({request.views.size(0), height, width, 3}), request.views.size(0));
      height = grid.size(1);
      width = grid.size(2);
    }
    if (*request.num_frames > 1 || !is_picture(path_))
      video_ = std::make_unique<trainer::VideoWriter>(path_, height, width, options);
  }

  void add(const World& part, int64_t keep_frames) {
    if (args_.count("output-tensors")) {
      latents_.push_back(part.latents);
      videos_.push_back(((part.video + 1) / 2).clamp(0, 1).transpose(1, 2));
    }
    if (part.video.size(2) == 0) return;
    Tensor frames = trainer::to_frames(part.video[0]);
    if (!views_.empty()) {
      const auto count = static_cast<int64_t>(views_.size());
      const Tensors parts = frames.chunk(count);
      for (std::size_t v = 0; v < views_.size(); ++v) views_[v]->add(parts[v].contiguous());
      frames = view_grid(frames, count);
    }
    if (video_) video_->add(frames);
    for (int64_t t = 0; t < frames.size(0); ++t) {
      char name[32];
      std::snprintf(name, sizeof name, "%04d.png", static_cast<int>(count_ + t));
      trainer::write_png(fs::path(stem_.string() + "-frames") / name, frames[t]);
    }
    if (!video_) trainer::write_png(path_, frames[0]);
    if (count_ < keep_frames) first_.push_back(frames.slice(0, 0, keep_frames - count_));
    count_changes(frames);
    count_ += frames.size(0);
    memory_.push_back(resident_bytes());
  }

  void finish() {
    if (video_) video_->finish();
    for (const auto& view : views_) view->finish();
    if (!args_.count("output-tensors")) return;
    Tensor latents = torch::cat(latents_, 2);
    if (picture_) latents = latents.squeeze(2);  // as diffusers returns them
    save_safetensors(
        text_of(args_, "output-tensors"),
        {{"latents", latents.contiguous()}, {"frames", torch::cat(videos_, 1).contiguous()}});
  }

  /// Takes the clip back: its file, its frames and its tensors.
  void discard() const {
    std::error_code ignored;
    std::vector<fs::path> paths = view_paths_;
    for (const fs::path& path : {path_, beside("-frames"), beside("-beside-real.png"),
                                 fs::path(text_of(args_, "output-tensors"))})
      paths.push_back(path);
    for (const fs::path& path : paths)
      if (!path.empty()) fs::remove_all(path, ignored);
  }

  fs::path beside(const char* ending) const { return stem_.string() + ending; }
  /// Of this process after each chunk.
  const std::vector<int64_t>& memory() const { return memory_; }
  /// The clip's first frames, as many as add() was told to keep.
  Tensor first_frames() const { return torch::cat(first_); }
  double frame_change() const {
    return count_ < 2 ? 0 : changes_ / static_cast<double>(count_ - 1);
  }

 private:
  void count_changes(const Tensor& frames) {
    const Tensor all = last_.defined() ? torch::cat({last_, frames}) : frames;
    changes_ += mean_change(all) * static_cast<double>(all.size(0) - 1);
    last_ = frames.slice(0, -1).clone();
  }

  const cxxopts::ParseResult& args_;
  fs::path path_, stem_;
  bool picture_;
  std::unique_ptr<trainer::VideoWriter> video_;               ///< of several views, their grid
  std::vector<std::unique_ptr<trainer::VideoWriter>> views_;  ///< of each view, where there are any
  std::vector<fs::path> view_paths_;
  std::vector<Tensor> latents_, videos_, first_;
  Tensor last_;
  double changes_ = 0;
  int64_t count_ = 0;
  std::vector<int64_t> memory_;
};

inline Json control_record(const WorldRequest& request) {
  Json record = Json::object();
  for (const auto& [name, control] : request.controls)
    record[name.empty() ? "control" : name] = {{"weight", control.weight},
                                               {"mask", static_cast<bool>(control.mask)}};
  return record;
}

inline Json view_record(const cxxopts::ParseResult& args, const WorldRequest& request) {
  Json record = Json::array();
  if (!request.views.defined()) return record;
  const std::vector<ViewArgument> views = views_of(args);
  for (int64_t v = 0; v < request.views.size(0); ++v)
    record.push_back({{"camera", camera_name(request.views[v].item<int64_t>())},
                      {"prompt", views.empty() ? "" : views[static_cast<std::size_t>(v)].prompt}});
  return record;
}

inline void write_record(const cxxopts::ParseResult& args, const WorldPipeline& pipeline,
                         const WorldRequest& request, const GivenFootage& footage, const Json& sums,
                         const Json& guardrail, const Output& output) {
  const Tensor first = output.first_frames();
  Json record{{"program", std::string("cosmos-generate ") + version()},
              {"class", pipeline.index.class_name},
              {"seed", request.seed},
              {"compat", args["compat"].as<std::string>()},
              {"steps", *request.steps},
              {"guidance", *request.guidance},
              {"condition_frames", *request.condition_frames},
              {"condition_time", *request.condition_time},
              {"height", *request.height},
              {"width", *request.width},
              {"num_frames", *request.num_frames},
              {"chunk_frames", *request.chunk_frames},
              {"overlap", request.overlap_frames},
              {"fps", *request.fps},
              {"controls", control_record(request)},
              {"control_weight", request.control_scale},
              {"actions", text_of(args, "actions")},
              {"views", view_record(args, request)},
              {"dtype", args["dtype"].as<std::string>()},
              {"vae_tiling", pipeline.vae->tiling().has_value()},
              {"text", request.prompt_embeds.defined() ? "embeddings" : "none"},
              {"prompt", text_of(args, "prompt")},
              {"negative_prompt", text_of(args, "negative-prompt")},
              {"guardrail", guardrail},
              {"scheduler", pipeline.scheduler},
              {"crc32c", sums},
              {"resident_bytes", output.memory()},
              {"frame_change", output.frame_change()}};
  if (footage.given.defined()) record["first_frame_psnr"] = psnr(first[0], footage.given[0]);
  if (footage.real.defined()) {
    const int64_t frames = footage.real.size(0);
    record["frame_change_real"] = mean_change(footage.real);
    trainer::write_png(output.beside("-beside-real.png"),
                       trainer::contact_sheet(torch::cat({footage.real, first}), frames));
  }
  write_json(output.beside(".json"), record);
}

}  // namespace cosmos::tools
