#pragma once

// The options of cosmos-generate, and the request that they make.

#include <cxxopts.hpp>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "modules/hub/safetensors.h"
#include "modules/pipeline/world.h"
#include "tools/controls.h"
#include "tools/generate_views.h"
#include "trainer/data/media_writer.h"
#include "trainer/data/robot_actions.h"
#include "trainer/data/video_reader.h"

namespace cosmos::tools {

namespace fs = std::filesystem;
using namespace modules;

inline std::string text_of(const cxxopts::ParseResult& args, const char* name) {
  return args.count(name) ? args[name].as<std::string>() : "";
}

inline std::vector<std::string> list_of(const cxxopts::ParseResult& args, const char* name) {
  return args.count(name) ? args[name].as<std::vector<std::string>>() : std::vector<std::string>{};
}

template <typename T>
inline std::optional<T> number_of(const cxxopts::ParseResult& args, const char* name) {
  return args.count(name) ? std::optional<T>(args[name].as<T>()) : std::nullopt;
}

// "controls.edge" -> "edge", "controls" -> "".
inline std::optional<std::string> control_name(const std::string& name, const std::string& prefix) {
  if (name == prefix) return "";
  if (name.rfind(prefix + ".", 0) != 0) return std::nullopt;
  return name.substr(prefix.size() + 1);
}

// In [0, 1] or uint8 -> float32 in [0, 1]
inline Tensor unit_range(const Tensor& x) {
  return x.to(torch::kFloat32) / (x.scalar_type() == torch::kUInt8 ? 255.0 : 1.0);
}

// Tensors handed over. Videos are in [0, 1] or uint8 there. A control keeps the weight and mask
// that
// --control gives it.
inline void take_inputs(const std::string& file, WorldRequest& request) {
  const std::map<std::string, Tensor*> slots = {
      {"prompt_embeds", &request.prompt_embeds},
      {"negative_prompt_embeds", &request.negative_prompt_embeds},
      {"latents", &request.latents},
      {"img_context", &request.img_context}};
  const TensorMap tensors = load_safetensors(file);
  for (const auto& [name, tensor] : tensors) {
    if (const auto slot = slots.find(name); slot != slots.end()) {
      *slot->second = tensor;
    } else if (name == "video") {
      request.video = unit_range(tensor) * 2 - 1;
    } else if (const auto control = control_name(name, "controls")) {
      require(tensor.dim() == 5, file, ": ", name, ": expected [1, 3 or 1, T, H, W], got ",
              tensor.sizes());
      request.controls[*control].frames = frames_of(unit_range(tensor) * 2 - 1);
      request.controls[*control].length = tensor.size(2);
    } else if (!control_name(name, "control_masks")) {
      fail(file, ": ", name, " is not an input (prompt_embeds, negative_prompt_embeds, latents, ",
           "video, controls, control_masks, img_context)");
    }
  }
  for (const auto& [name, tensor] : tensors) {  // now that every control is there
    const auto control = control_name(name, "control_masks");
    if (!control) continue;
    const auto found = request.controls.find(*control);
    require(found != request.controls.end(), file, ": ", name, " has no control beside it");
    require(tensor.dim() == 5, file, ": ", name, ": expected [1, 1, T, H, W], got ",
            tensor.sizes());
    found->second.mask = frames_of(unit_range(tensor));
    found->second.length = std::min(found->second.length, tensor.size(2));
  }
}

inline void take_controls(const cxxopts::ParseResult& args, const WorldRequest& request,
                          std::map<std::string, ControlSignal>& controls) {
  const ControlOptions options{
      .from = text_of(args, "control-from"),
      .strength = strength_from(args["control-strength"].as<std::string>(), "--control-strength"),
      .fps = request.fps.value_or(0),
      .size = {.height = *request.height, .width = *request.width},
      .start = args["control-start"].as<int64_t>(),
      .length = request.num_frames.value_or(kPictureLength)};
  const std::vector<ViewArgument> views = views_of(args);
  std::map<std::string, std::map<int64_t, ControlSignal>> by_camera;
  for (const std::string& text : list_of(args, "control")) {
    const ControlArgument argument = parse_control(text);
    if (const auto slash = argument.name.find('/'); !views.empty() && slash != std::string::npos) {
      const int64_t camera = camera_index(argument.name.substr(slash + 1), "--control " + text);
      require(!argument.file.empty(), "--control ", text, ": expected ", argument.name, "=FILE");
      by_camera[argument.name.substr(0, slash)][camera] = open_control(argument, options);
      continue;
    }
    if (const auto given = controls.find(argument.name);
        given != controls.end() && argument.file.empty() && options.from.empty()) {
      require(argument.mask.empty(), "--control ", text, ": the control comes from --inputs, and ",
              "so must its mask (control_masks.", argument.name, ")");
      given->second.weight = argument.weight;
      continue;
    }
    require(!controls.count(argument.name), "--control: ", argument.name, " is given twice");
    controls[argument.name] = open_control(argument, options);
  }
  for (const auto& [name, given] : by_camera) controls[name] = join_controls(name, given, views);
}

// Frames of --video: the given ones and, for the record, those that follow them.
struct GivenFootage {
  Tensor given;  ///< uint8 [n, H, W, 3]
  Tensor real;   ///< given frames and what follows, at most num_frames; undefined without --start
};

inline GivenFootage read_footage(const cxxopts::ParseResult& args, const fs::path& path,
                                 const WorldRequest& request, int64_t needed) {
  const trainer::FrameSize size{.height = *request.height, .width = *request.width};
  const double fps = *request.fps;
  const auto info = trainer::probe_video(path);
  const auto total = static_cast<int64_t>(trainer::timeline(info, fps).size());
  const int64_t first = args.count("start") ? args["start"].as<int64_t>() : total - needed;
  require(first >= 0 && first + needed <= total, path.string(), ": frames ", first, " to ",
          first + needed - 1, " are needed, the video has ", total, " at ", fps, " fps");
  const int64_t frames =
      args.count("start") ? std::min(*request.num_frames, total - first) : needed;
  const Tensor read =
      trainer::read_video(path, info, {.first = first, .frames = frames, .fps = fps, .size = size});
  return {read.slice(0, 0, needed), args.count("start") ? read : Tensor()};
}

// What the views start from: a picture each, or a video each.
inline void take_views(const cxxopts::ParseResult& args, const WorldPipeline& pipeline,
                       WorldRequest& request) {
  const std::vector<ViewArgument> views = views_of(args);
  const auto given = [](const ViewArgument& view) { return !view.file.empty(); };
  const auto files = std::count_if(views.begin(), views.end(), given);
  if (files == 0 || request.condition_frames == 0) return;
  require(files == static_cast<std::ptrdiff_t>(views.size()), "--view: ", files, " of ",
          views.size(), " views have a file to start from; expected all or none");
  const auto pictures = std::count_if(
      views.begin(), views.end(), [](const ViewArgument& view) { return is_picture(view.file); });
  require(pictures == 0 || pictures == files, "--view: expected pictures, or videos, not both");
  if (!request.condition_frames) request.condition_frames = pictures > 0 ? 1 : 2;
  require(pictures == 0 || *request.condition_frames == 1, "--condition-frames: pictures are one ",
          "given latent frame, got ", *request.condition_frames);
  if (!request.num_frames) request.num_frames = settings_of(pipeline, request.compat).frames;
  Tensors starts;
  for (const ViewArgument& view : views) {
    const Tensor frames =
        pictures > 0
            ? trainer::read_image(view.file, {.height = *request.height, .width = *request.width})
                  .unsqueeze(0)
            : read_footage(args, view.file, request,
                           pipeline.vae->video_frames(*request.condition_frames))
                  .given;
    starts.push_back(trainer::from_frames(frames.contiguous()));
  }
  request.video = torch::stack(starts);
}

inline WorldRequest make_request(const cxxopts::ParseResult& args) {
  const std::string posterior = args["posterior"].as<std::string>(),
                    compat = args["compat"].as<std::string>();
  require(posterior == "mode" || posterior == "sample",
          "--posterior: expected mode or sample, got ", posterior);
  require(compat == "nvidia" || compat == "diffusers",
          "--compat: expected nvidia or diffusers, got ", compat);
  require(!args.count("image") || !args.count("video"), "--image and --video exclude each other");
  const auto fps = number_of<double>(args, "fps");
  require(!fps || *fps > 0, "--fps: expected a positive number, got ", fps.value_or(0));
  WorldRequest request;
  request.condition_frames = number_of<int64_t>(args, "condition-frames");
  request.sample_posterior = posterior == "sample";
  request.height = number_of<int64_t>(args, "height");
  request.width = number_of<int64_t>(args, "width");
  request.num_frames = number_of<int64_t>(args, "num-frames");
  request.chunk_frames = number_of<int64_t>(args, "chunk-frames");
  request.overlap_frames = args["overlap"].as<int64_t>();
  request.steps = number_of<int64_t>(args, "steps");
  request.fps = fps;
  request.guidance = number_of<double>(args, "guidance");
  request.condition_time = number_of<double>(args, "condition-time");
  request.augment_sigma = args["augment-sigma"].as<double>();
  request.control_scale = parse_weights(args["control-weight"].as<std::string>());
  request.seed = args["seed"].as<uint64_t>();
  request.compat = compat == "nvidia" ? Compat::kNvidia : Compat::kDiffusers;
  if (args.count("actions"))
    request.actions = trainer::RobotActions::read(text_of(args, "actions"),
                                                  {.pose = args["action-scale"].as<double>(),
                                                   .gripper = args["gripper-scale"].as<double>()})
                          .all();
  std::vector<int64_t> cameras;
  for (const ViewArgument& view : views_of(args)) cameras.push_back(view.camera);
  if (!cameras.empty()) request.views = torch::tensor(cameras);
  require(cameras.empty() || (!args.count("image") && !args.count("video")),
          "--view: each view has its own file (NAME=FILE); --image and --video are for one view");
  if (args.count("inputs")) take_inputs(text_of(args, "inputs"), request);
  return request;
}

// Opens the files that the request names: their frames come in the class's size and rate where the
// command line has none.
inline GivenFootage take_files(const cxxopts::ParseResult& args, const WorldPipeline& pipeline,
                               WorldRequest& request) {
  const WorldFamily family = settings_of(pipeline, request.compat);
  require(!multi_view(*pipeline.transformer) || args.count("view") || !args.count("prompt"),
          "--prompt: the model has several views; name its cameras with --view");
  request.height = request.height.value_or(family.height);
  request.width = request.width.value_or(family.width);
  take_controls(args, request, request.controls);
  request.fps = request.fps.value_or(family.fps);
  GivenFootage footage;
  if (args.count("view")) {
    take_views(args, pipeline, request);
    return footage;
  }
  if (args.count("image")) {
    footage.given = trainer::read_image(text_of(args, "image"),
                                        {.height = *request.height, .width = *request.width})
                        .unsqueeze(0);
    request.condition_frames = 1;
  } else if (args.count("video")) {
    if (!request.num_frames) request.num_frames = family.frames;
    if (!request.condition_frames) request.condition_frames = 2;
    footage = read_footage(args, text_of(args, "video"), request,
                           pipeline.vae->video_frames(*request.condition_frames));
  }
  if (footage.given.defined())
    request.video = trainer::from_frames(footage.given.contiguous()).unsqueeze(0);
  return footage;
}

}  // namespace cosmos::tools
