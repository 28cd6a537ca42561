// cosmos-generate: worlds from text embeddings, an image, a video or control videos, with the
// pipelines of Cosmos Predict1, Predict2, Predict2.5 and Transfer2.5.

#include <cmath>
#include <cstdio>
// A list option is given several times; commas belong to file names.
#define CXXOPTS_VECTOR_DELIMITER '\n'
#include <cxxopts.hpp>
#include <filesystem>
#include <iostream>
#include <unistd.h>

#include "modules/hub/json_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/safetensors.h"
#include "modules/lora/files.h"
#include "modules/pipeline/world.h"
#include "modules/registry.h"
#include "ops/core/version.h"
#include "tools/controls.h"
#include "tools/program.h"
#include "tools/prompt_embeds.h"
#include "trainer/checkpoint/crc32c.h"
#include "trainer/data/media_writer.h"
#include "trainer/data/video_reader.h"
#include "trainer/report/console.h"

namespace {

namespace fs = std::filesystem;
using namespace cosmos;
using namespace cosmos::modules;
using cosmos::trainer::Console;

cxxopts::Options make_options() {
  cxxopts::Options options(
      "cosmos-generate",
      "Generates a video with a Cosmos pipeline (Predict1, Predict2, Predict2.5, Transfer2.5): "
      "from\n"
      "text embeddings, an image, the end of a video, control videos. Writes the clip, its frames\n"
      "as PNG (OUT-frames/) and a record (OUT.json). Settings left out are the class's own.\n\n"
      "Exit codes: 0 done, 1 bad input (one line on stderr), 2 wrong usage.\n");
  const auto text = [] { return cxxopts::value<std::string>(); };
  const auto integer = [] { return cxxopts::value<int64_t>(); };
  const auto number = [] { return cxxopts::value<double>(); };
  // clang-format off
  options.add_options()
    ("pipeline", "pipeline folder: model_index.json, transformer/, vae/, scheduler/", text())
    ("transformer", "transformer folder, with --vae instead of --pipeline", text())
    ("vae", "tokenizer folder, with --transformer instead of --pipeline", text())
    ("scheduler", "scheduler_config.json for --transformer and --vae (default: flow, shift 5)", text())
    ("adapter", "LoRA to put on the transformer: PEFT folder or diffusers file's folder", text())
    ("save-pipeline", "also write the pipeline as one folder that diffusers loads", text())
    ("output", "clip to write (.mp4)", text())
    ("image", "picture to start from", text())
    ("video", "video to continue", text())
    ("start", "with --video: number of the first given frame (default: the last ones are given)", integer())
    ("height", "pixels", integer())
    ("width", "pixels", integer())
    ("num-frames", "frames of the clip; with controls at most theirs", integer())
    ("chunk-frames", "frames generated at once; longer clips are made chunk by chunk", integer())
    ("overlap", "frames that a chunk takes over from the one before", integer()->default_value("1"))
    ("fps", "frames a second of the clip, and of videos as they are read", number())
    ("steps", "sampler steps", integer())
    ("guidance", "cond + guidance (cond - uncond)", number())
    ("seed", "of the initial noise", cxxopts::value<uint64_t>()->default_value("0"))
    ("condition-frames", "given latent frames (default: 1 for --image, 2 for --video)", integer())
    ("condition-time", "network time of given frames; -1 = that of the clip", number())
    ("augment-sigma", "Predict1: noise level at which given frames are shown", number()->default_value("0.001"))
    ("control", "NAME[=FILE][:WEIGHT][@MASK]; edge and blur may be made from --control-from; repeatable", cxxopts::value<std::vector<std::string>>())
    ("control-from", "RGB clip that edge and blur without FILE are made from", text())
    ("control-strength", "of those: very_low, low, medium, high, very_high", text()->default_value("medium"))
    ("control-weight", "factor on all controls: one number, or one a control block (1,0.5,...)", text()->default_value("1"))
    ("controlnet", "NAME=DIR: control net beside the pipeline's own; repeatable", cxxopts::value<std::vector<std::string>>())
    ("posterior", "given latents: mode or sample of the tokenizer's posterior", text()->default_value("mode"))
    ("compat", "nvidia or diffusers, where the two differ", text()->default_value("diffusers"))
    ("inputs", "safetensors: prompt_embeds, negative_prompt_embeds, latents (noise), video, controls[.NAME], control_masks[.NAME], img_context", text())
    ("output-tensors", "safetensors to write: latents, frames", text())
    ("prompt", "text; needs the pipeline's text_encoder/ and tokenizer/", text())
    ("negative-prompt", "text that guidance leads away from (default: no text)", text())
    ("dtype", "float32 or bfloat16", text()->default_value("float32"))
    ("h,help", "this text");
  // clang-format on
  return options;
}

std::string text_of(const cxxopts::ParseResult& args, const char* name) {
  return args.count(name) ? args[name].as<std::string>() : "";
}

std::vector<std::string> list_of(const cxxopts::ParseResult& args, const char* name) {
  return args.count(name) ? args[name].as<std::vector<std::string>>() : std::vector<std::string>{};
}

template <typename T>
std::optional<T> number_of(const cxxopts::ParseResult& args, const char* name) {
  return args.count(name) ? std::optional<T>(args[name].as<T>()) : std::nullopt;
}

WorldPipeline load(const cxxopts::ParseResult& args) {
  const torch::Dtype dtype = parse_dtype(args["dtype"].as<std::string>());
  const bool whole = args.count("pipeline") > 0;
  require(whole || (args.count("transformer") && args.count("vae")),
          "expected --pipeline DIR, or --transformer DIR with --vae DIR");
  WorldPipeline pipeline =
      whole ? load_world_pipeline(text_of(args, "pipeline"), dtype)
            : load_world_components(text_of(args, "transformer"), text_of(args, "vae"),
                                    text_of(args, "scheduler"), dtype);
  for (const std::string& item : list_of(args, "controlnet")) {
    const auto equal = item.find('=');
    require(equal != std::string::npos && equal > 0, "--controlnet ", item, ": expected NAME=DIR");
    add_control_net(pipeline, item.substr(0, equal), item.substr(equal + 1), dtype);
  }
  if (args.count("adapter")) {
    load_adapter(*pipeline.transformer, text_of(args, "adapter"));
    pipeline.transformer->eval();
  }
  return pipeline;
}

// "controls.edge" -> "edge", "controls" -> "".
std::optional<std::string> control_name(const std::string& name, const std::string& prefix) {
  if (name == prefix) return "";
  if (name.rfind(prefix + ".", 0) != 0) return std::nullopt;
  return name.substr(prefix.size() + 1);
}

// In [0, 1] or uint8 -> float32 in [0, 1]
Tensor unit_range(const Tensor& x) {
  return x.to(torch::kFloat32) / (x.scalar_type() == torch::kUInt8 ? 255.0 : 1.0);
}

// Tensors handed over. Videos are in [0, 1] or uint8 there. A control keeps the weight and mask
// that
// --control gives it.
void take_inputs(const std::string& file, WorldRequest& request) {
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

void take_controls(const cxxopts::ParseResult& args, const WorldRequest& request,
                   std::map<std::string, ControlSignal>& controls) {
  const tools::ControlOptions options{
      .from = text_of(args, "control-from"),
      .strength = strength_from(args["control-strength"].as<std::string>(), "--control-strength"),
      .fps = request.fps.value_or(0),
      .size = {.height = *request.height, .width = *request.width}};
  for (const std::string& text : list_of(args, "control")) {
    const tools::ControlArgument argument = tools::parse_control(text);
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
}

// Frames of --video: the given ones and, for the record, those that follow them.
struct GivenFootage {
  Tensor given;  ///< uint8 [n, H, W, 3]
  Tensor real;   ///< given frames and what follows, at most num_frames; undefined without --start
};

GivenFootage read_footage(const cxxopts::ParseResult& args, const WorldRequest& request,
                          int64_t needed) {
  const trainer::FrameSize size{.height = *request.height, .width = *request.width};
  const fs::path path = text_of(args, "video");
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

double mean_change(const Tensor& frames) {
  if (frames.size(0) < 2) return 0;
  const Tensor f = frames.to(torch::kFloat32);
  return (f.slice(0, 1) - f.slice(0, 0, -1)).abs().mean().item<double>();
}

double psnr(const Tensor& a, const Tensor& b) {
  const double error =
      (a.to(torch::kFloat64) - b.to(torch::kFloat64)).square().mean().item<double>();
  return 10 * std::log10(255.0 * 255.0 / std::max(error, 1e-10));
}

// CRC-32C of every file of the components, by path below the folder.
Json checksums(const cxxopts::ParseResult& args) {
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
    if (*request.num_frames > 1 || !tools::is_picture(path_))
      video_ = std::make_unique<trainer::VideoWriter>(path_, *request.height, *request.width,
                                                      trainer::VideoOptions{.fps = *request.fps});
  }

  void add(const World& part, int64_t keep_frames) {
    if (args_.count("output-tensors")) {
      latents_.push_back(part.latents);
      videos_.push_back(((part.video + 1) / 2).clamp(0, 1).transpose(1, 2));
    }
    if (part.video.size(2) == 0) return;
    const Tensor frames = trainer::to_frames(part.video[0]);
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
  }

  void finish() {
    if (video_) video_->finish();
    if (!args_.count("output-tensors")) return;
    Tensor latents = torch::cat(latents_, 2);
    if (picture_) latents = latents.squeeze(2);  // as diffusers returns them
    save_safetensors(
        text_of(args_, "output-tensors"),
        {{"latents", latents.contiguous()}, {"frames", torch::cat(videos_, 1).contiguous()}});
  }

  fs::path beside(const char* ending) const { return stem_.string() + ending; }
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
  std::unique_ptr<trainer::VideoWriter> video_;
  std::vector<Tensor> latents_, videos_, first_;
  Tensor last_;
  double changes_ = 0;
  int64_t count_ = 0;
};

Json control_record(const WorldRequest& request) {
  Json record = Json::object();
  for (const auto& [name, control] : request.controls)
    record[name.empty() ? "control" : name] = {{"weight", control.weight},
                                               {"mask", static_cast<bool>(control.mask)}};
  return record;
}

void write_record(const cxxopts::ParseResult& args, const WorldPipeline& pipeline,
                  const WorldRequest& request, const GivenFootage& footage, const Output& output) {
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
              {"dtype", args["dtype"].as<std::string>()},
              {"text", request.prompt_embeds.defined() ? "embeddings" : "none"},
              {"prompt", text_of(args, "prompt")},
              {"negative_prompt", text_of(args, "negative-prompt")},
              {"guardrail", "none"},
              {"scheduler", pipeline.scheduler},
              {"crc32c", checksums(args)},
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

WorldRequest make_request(const cxxopts::ParseResult& args) {
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
  request.control_scale = tools::parse_weights(args["control-weight"].as<std::string>());
  request.seed = args["seed"].as<uint64_t>();
  request.compat = compat == "nvidia" ? Compat::kNvidia : Compat::kDiffusers;
  if (args.count("inputs")) take_inputs(text_of(args, "inputs"), request);
  return request;
}

// Opens the files that the request names: their frames come in the class's size and rate where the
// command line has none.
GivenFootage take_files(const cxxopts::ParseResult& args, const WorldPipeline& pipeline,
                        WorldRequest& request) {
  WorldFamily family = world_family(pipeline.index.class_name, "model_index.json");
  if (request.compat == Compat::kNvidia) family = nvidia_settings(family);
  request.height = request.height.value_or(family.height);
  request.width = request.width.value_or(family.width);
  take_controls(args, request, request.controls);
  request.fps = request.fps.value_or(family.fps);
  GivenFootage footage;
  if (args.count("image")) {
    footage.given = trainer::read_image(text_of(args, "image"),
                                        {.height = *request.height, .width = *request.width})
                        .unsqueeze(0);
    request.condition_frames = 1;
  } else if (args.count("video")) {
    if (!request.num_frames) request.num_frames = family.frames;
    if (!request.condition_frames) request.condition_frames = 2;
    footage = read_footage(args, request, pipeline.vae->video_frames(*request.condition_frames));
  }
  if (footage.given.defined())
    request.video = trainer::from_frames(footage.given.contiguous()).unsqueeze(0);
  return footage;
}

int run(int argc, char** argv) {
  cxxopts::Options options = make_options();
  const cxxopts::ParseResult args = options.parse(argc, argv);
  if (args.count("help")) return std::cout << options.help() << '\n', 0;
  if (!args.count("output") || !args.unmatched().empty())
    return std::cerr << options.help() << '\n', 2;
  register_builtin_models();
  Console console(std::cerr, ::isatty(STDERR_FILENO) != 0);
  WorldRequest request = make_request(args);
  if (const std::string note = tools::encode_prompts(args, request); !note.empty())
    console.line(note);
  WorldPipeline pipeline = load(args);
  const GivenFootage footage = take_files(args, pipeline, request);
  const auto begin = std::chrono::steady_clock::now();
  request.progress = [&](int64_t done, int64_t steps) {
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    const double left =
        spent.count() / static_cast<double>(done) * static_cast<double>(steps - done);
    console.progress({.done = done, .total = steps, .seconds_left = left, .details = {}},
                     done == steps || done % 10 == 0);
  };
  request = with_defaults(pipeline, request);
  if (!request.prompt_embeds.defined())
    console.line("note: no text embeddings given; generating without text (zeros)");
  Output output(args, request, world_family(pipeline.index.class_name, "pipeline").picture);
  const int64_t keep = footage.real.defined() ? footage.real.size(0) : 1;
  generate_world(pipeline, request, [&](const World& part) { output.add(part, keep); });
  output.finish();
  write_record(args, pipeline, request, footage, output);
  if (args.count("save-pipeline")) save_world_pipeline(text_of(args, "save-pipeline"), pipeline);
  console.line("wrote " + text_of(args, "output"));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("cosmos-generate", argc, argv, run);
}
