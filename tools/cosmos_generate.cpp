// cosmos-generate: worlds from text embeddings, an image or a video, with Cosmos Predict2.5.

#include <cmath>
#include <cstdio>
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
      "Generates a video with a Cosmos Predict2.5 pipeline: from text embeddings, an image or the\n"
      "end of a video. Writes the clip, its frames as PNG (OUT-frames/) and a record "
      "(OUT.json).\n\n"
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
    ("height", "pixels", integer()->default_value("704"))
    ("width", "pixels", integer()->default_value("1280"))
    ("num-frames", "frames of the clip", integer()->default_value("93"))
    ("fps", "frames a second of the clip, and of --video as it is read", number()->default_value("16"))
    ("steps", "sampler steps", integer()->default_value("36"))
    ("guidance", "cond + guidance (cond - uncond)", number()->default_value("7"))
    ("seed", "of the initial noise", cxxopts::value<uint64_t>()->default_value("0"))
    ("condition-frames", "given latent frames, 1 or 2 (default: 1 for --image, 2 for --video)", integer())
    ("condition-time", "network time of given frames; -1 = that of the clip", number()->default_value("0.0001"))
    ("posterior", "given latents: mode or sample of the tokenizer's posterior", text()->default_value("mode"))
    ("compat", "nvidia or diffusers, where the two differ", text()->default_value("diffusers"))
    ("inputs", "safetensors: prompt_embeds, negative_prompt_embeds, latents (noise), video", text())
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

WorldPipeline load(const cxxopts::ParseResult& args) {
  const torch::Dtype dtype = parse_dtype(args["dtype"].as<std::string>());
  const bool whole = args.count("pipeline") > 0;
  require(whole || (args.count("transformer") && args.count("vae")),
          "expected --pipeline DIR, or --transformer DIR with --vae DIR");
  WorldPipeline pipeline =
      whole ? load_world_pipeline(text_of(args, "pipeline"), dtype)
            : load_world_components(text_of(args, "transformer"), text_of(args, "vae"),
                                    text_of(args, "scheduler"), dtype);
  if (args.count("adapter")) {
    load_adapter(*pipeline.transformer, text_of(args, "adapter"));
    pipeline.transformer->eval();
  }
  return pipeline;
}

// Tensors handed over. Videos are in [0, 1] or uint8 there.
void take_inputs(const std::string& file, WorldRequest& request) {
  for (const auto& [name, tensor] : load_safetensors(file)) {
    if (name == "prompt_embeds") {
      request.prompt_embeds = tensor;
    } else if (name == "negative_prompt_embeds") {
      request.negative_prompt_embeds = tensor;
    } else if (name == "latents") {
      request.latents = tensor;
    } else if (name == "video") {
      const double scale = tensor.scalar_type() == torch::kUInt8 ? 2.0 / 255 : 2.0;
      request.video = tensor.to(torch::kFloat32) * scale - 1;
    } else {
      fail(file, ": ", name, " is not an input (prompt_embeds, negative_prompt_embeds, latents, ",
           "video)");
    }
  }
}

// Frames of --video: the given ones and, for the record, those that follow them.
struct Footage {
  Tensor given;  ///< uint8 [n, H, W, 3]
  Tensor real;   ///< given frames and what follows, at most num_frames; undefined without --start
};

Footage read_footage(const cxxopts::ParseResult& args, const WorldRequest& request,
                     int64_t needed) {
  const trainer::FrameSize size{.height = request.height, .width = request.width};
  const fs::path path = text_of(args, "video");
  const double fps = args["fps"].as<double>();
  const auto info = trainer::probe_video(path);
  const auto total = static_cast<int64_t>(trainer::timeline(info, fps).size());
  const int64_t first = args.count("start") ? args["start"].as<int64_t>() : total - needed;
  require(first >= 0 && first + needed <= total, path.string(), ": frames ", first, " to ",
          first + needed - 1, " are needed, the video has ", total, " at ", fps, " fps");
  const int64_t frames = args.count("start") ? std::min(request.num_frames, total - first) : needed;
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

void write_outputs(const cxxopts::ParseResult& args, const WorldRequest& request,
                   const World& world, const Footage& footage, const Json& scheduler) {
  const fs::path output = text_of(args, "output");
  const fs::path stem = output.parent_path() / output.stem();
  const Tensor frames = trainer::to_frames(world.video[0]);
  trainer::write_video(output, frames, {.fps = args["fps"].as<double>()});
  const fs::path folder = stem.string() + "-frames";
  for (int64_t t = 0; t < frames.size(0); ++t) {
    char name[32];
    std::snprintf(name, sizeof name, "%04d.png", static_cast<int>(t));
    trainer::write_png(folder / name, frames[t]);
  }
  if (args.count("output-tensors"))
    save_safetensors(
        text_of(args, "output-tensors"),
        {{"latents", world.latents},
         {"frames", ((world.video + 1) / 2).clamp(0, 1).transpose(1, 2).contiguous()}});
  Json record{{"program", std::string("cosmos-generate ") + version()},
              {"class", "Cosmos2_5_PredictBasePipeline"},
              {"seed", request.seed},
              {"compat", args["compat"].as<std::string>()},
              {"steps", request.steps},
              {"guidance", request.guidance},
              {"condition_frames", request.video.defined() ? request.condition_frames : 0},
              {"condition_time", request.condition_time},
              {"height", request.height},
              {"width", request.width},
              {"num_frames", request.num_frames},
              {"fps", args["fps"].as<double>()},
              {"dtype", args["dtype"].as<std::string>()},
              {"text", request.prompt_embeds.defined() ? "embeddings" : "none"},
              {"prompt", text_of(args, "prompt")},
              {"negative_prompt", text_of(args, "negative-prompt")},
              {"guardrail", "none"},
              {"scheduler", scheduler},
              {"crc32c", checksums(args)},
              {"frame_change", mean_change(frames)}};
  if (footage.given.defined()) record["first_frame_psnr"] = psnr(frames[0], footage.given[0]);
  if (footage.real.defined()) {
    record["frame_change_real"] = mean_change(footage.real);
    trainer::write_png(
        stem.string() + "-beside-real.png",
        trainer::contact_sheet(torch::cat({footage.real, frames.slice(0, 0, footage.real.size(0))}),
                               footage.real.size(0)));
  }
  write_json(stem.string() + ".json", record);
}

WorldRequest make_request(const cxxopts::ParseResult& args) {
  const std::string posterior = args["posterior"].as<std::string>(),
                    compat = args["compat"].as<std::string>();
  require(posterior == "mode" || posterior == "sample",
          "--posterior: expected mode or sample, got ", posterior);
  require(compat == "nvidia" || compat == "diffusers",
          "--compat: expected nvidia or diffusers, got ", compat);
  require(!args.count("image") || !args.count("video"), "--image and --video exclude each other");
  require(args["fps"].as<double>() > 0, "--fps: expected a positive number");
  WorldRequest request;
  request.condition_frames = args.count("condition-frames") ? args["condition-frames"].as<int64_t>()
                                                            : (args.count("video") ? 2 : 1);
  request.sample_posterior = posterior == "sample";
  request.height = args["height"].as<int64_t>();
  request.width = args["width"].as<int64_t>();
  request.num_frames = args["num-frames"].as<int64_t>();
  request.steps = args["steps"].as<int64_t>();
  request.guidance = args["guidance"].as<double>();
  request.condition_time = args["condition-time"].as<double>();
  request.seed = args["seed"].as<uint64_t>();
  request.compat = compat == "nvidia" ? Compat::kNvidia : Compat::kDiffusers;
  if (args.count("inputs")) take_inputs(text_of(args, "inputs"), request);
  return request;
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

  Footage footage;
  if (args.count("image")) {
    const Tensor image = trainer::read_image(text_of(args, "image"),
                                             {.height = request.height, .width = request.width});
    footage.given = image.unsqueeze(0);
    request.condition_frames = 1;
  } else if (args.count("video")) {
    footage = read_footage(args, request, pipeline.vae->video_frames(request.condition_frames));
  }
  if (footage.given.defined())
    request.video = trainer::from_frames(footage.given.contiguous()).unsqueeze(0);
  if (!request.prompt_embeds.defined())
    console.line("note: no text embeddings given; generating without text (zeros)");

  const auto begin = std::chrono::steady_clock::now();
  request.progress = [&](int64_t done, int64_t steps) {
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    const double left =
        spent.count() / static_cast<double>(done) * static_cast<double>(steps - done);
    console.progress({.done = done, .total = steps, .seconds_left = left, .details = {}},
                     done == steps || done % 10 == 0);
  };
  const World world = generate_world(pipeline, request);
  write_outputs(args, request, world, footage, pipeline.scheduler);
  if (args.count("save-pipeline")) save_world_pipeline(text_of(args, "save-pipeline"), pipeline);
  console.line("wrote " + text_of(args, "output"));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("cosmos-generate", argc, argv, run);
}
