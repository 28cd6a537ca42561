// cosmos-generate: worlds from text embeddings, an image, a video or control videos, with the
// pipelines of Cosmos Predict1, Predict2, Predict2.5 and Transfer2.5.

// A list option is given several times; commas belong to file names.
#define CXXOPTS_VECTOR_DELIMITER '\n'
#include <chrono>
#include <cxxopts.hpp>
#include <filesystem>
#include <iostream>
#include <unistd.h>

#include "modules/pipeline/world.h"
#include "modules/registry.h"
#include "tools/device_option.h"
#include "tools/generate_jobs.h"
#include "tools/generate_load.h"
#include "tools/generate_output.h"
#include "tools/generate_request.h"
#include "tools/guardrail.h"
#include "tools/program.h"
#include "tools/prompt_embeds.h"
#include "trainer/report/console.h"

namespace {

namespace fs = std::filesystem;
using namespace cosmos;
using namespace cosmos::modules;
using namespace cosmos::tools;
using cosmos::trainer::Console;

cxxopts::Options make_options() {
  cxxopts::Options options(
      "cosmos-generate",
      "Generates a video with a Cosmos pipeline (Predict1, Predict2, Predict2.5, Transfer2.5): "
      "from\n"
      "text embeddings, an image, the end of a video, control videos. Writes the clip, its frames\n"
      "as PNG (OUT-frames/) and a record (OUT.json). Settings left out are the class's own.\n\n"
      "--prompts FILE.jsonl generates a clip for every line with one loading of the models: a "
      "line's\n"
      "keys are the options below from --output to --output-tensors, with _ for -, and come "
      "before\n"
      "the command line's ({\"prompt\": \"...\", \"seed\": 3, \"num_frames\": 93, \"control\": "
      "[\"edge=a.mp4\"]}).\n"
      "Its files are looked for beside FILE; --output is the folder for NAME.mp4, NAME being the "
      "line's\n"
      "`name`, its video's name or its number (000001). Every line is checked before the first "
      "clip; one\n"
      "that cannot be served is told as FILE:LINE, and the others go on.\n\n"
      "Exit codes: 0 done, 1 bad input (one line on stderr) or clips of a list that were not made, "
      "2 wrong\nusage.\n");
  const auto text = [] { return cxxopts::value<std::string>(); };
  const auto integer = [] { return cxxopts::value<int64_t>(); };
  const auto number = [] { return cxxopts::value<double>(); };
  // clang-format off
  options.add_options()
    ("pipeline", "pipeline folder: model_index.json, transformer/, vae/, scheduler/", text())
    ("transformer", "transformer folder, with --vae instead of --pipeline", text())
    ("vae", "tokenizer folder, with --transformer instead of --pipeline", text())
    ("scheduler", "scheduler_config.json for --transformer and --vae (default: flow, shift 5)", text())
    ("distilled", "the transformer is a few-step student (NVIDIA's base/distilled, distilled/general/edge: 4 steps; Transfer1's edge_control_distilled: 1): its steps, no guidance, instead of the pipeline's scheduler")
    ("adapter", "LoRA to put on the transformer: PEFT folder or diffusers file's folder", text())
    ("save-pipeline", "also write the pipeline as one folder that diffusers loads", text())
    ("prompts", "JSONL of clips to generate", text())
    ("output", "clip to write (.mp4); with --prompts a folder", text())
    ("image", "picture to start from", text())
    ("video", "video to continue", text())
    ("view", "NAME[=FILE] of a multi-view model: a camera (front_wide, cross_right, rear_right, rear, rear_left, cross_left, front_tele, or its number) and the picture or video that it starts from; repeatable. OUT.mp4 shows all, OUT-NAME.mp4 each", cxxopts::value<std::vector<std::string>>())
    ("view-prompt", "NAME=TEXT: what is said of a view (--prompt: of front_wide); repeatable", cxxopts::value<std::vector<std::string>>())
    ("start", "with --video or videos of --view: number of the first given frame (default: the last ones are given)", integer())
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
    ("actions", "robots: annotation file (.json) with states, or actions, of every frame (trainer/data/robot_actions.h)", text())
    ("action-scale", "factor on the six numbers of a pose", number()->default_value("20"))
    ("gripper-scale", "factor on the gripper's number", number()->default_value("1"))
    ("control", "NAME[=FILE][:WEIGHT][@MASK], MASK a file or the weights of frames (1,0); edge and blur may be made from --control-from; with --view NAME/CAMERA=FILE of every view; repeatable", cxxopts::value<std::vector<std::string>>())
    ("control-from", "RGB clip that edge and blur without FILE are made from", text())
    ("control-start", "first frame that is read of the control videos", integer()->default_value("0"))
    ("control-strength", "of those: very_low, low, medium, high, very_high", text()->default_value("medium"))
    ("control-weight", "factor on all controls: one number, or one a control block (1,0.5,...)", text()->default_value("1"))
    ("controlnet", "NAME=DIR: control net beside the pipeline's own; repeatable", cxxopts::value<std::vector<std::string>>())
    ("posterior", "given latents: mode or sample of the tokenizer's posterior", text()->default_value("mode"))
    ("compat", "nvidia or diffusers, where the two differ", text()->default_value("diffusers"))
    ("inputs", "safetensors: prompt_embeds, negative_prompt_embeds, latents (noise), video, controls[.NAME], control_masks[.NAME], img_context", text())
    ("output-tensors", "safetensors to write: latents, frames", text())
    ("prompt", "text; needs the pipeline's text_encoder/ and tokenizer/", text())
    ("negative-prompt", "text that guidance leads away from (default: no text)", text())
    ("max-memory", "8GiB: take VAE tiling, then block offload where tensors are predicted to take more; refuse what still does", text())
    ("offload", "blocks: weights stay in their files, and each block's come in when it runs; none; auto: where --max-memory needs it", text()->default_value("auto"))
    ("vae-tiling", "encode and decode large frames in tiles of 256 pixels with blended seams")
    ("guardrail", "program that is asked about prompts and clips: JSON lines in and out (tools/guardrail.h)", text())
    ("dtype", "float32 or bfloat16", text()->default_value("float32"))
    ("h,help", "this text");
  // clang-format on
  add_device_option(options);
  return options;
}

// The job's request as the models would get it; nothing of it is kept.
WorldRequest checked_request(const Job& job, const WorldPipeline& pipeline,
                             const PromptEmbeds& embeds) {
  WorldRequest request = make_request(job.args);
  take_prompts(job, embeds, request);
  take_files(job.args, pipeline, request);
  return with_defaults(pipeline, request);
}

std::string predicted(const PeakMemory& peak, const MemoryPlan& plan) {
  const auto text = [](int64_t bytes) { return trainer::format_bytes(static_cast<double>(bytes)); };
  return "tensors are predicted to take " + text(peak.total()) + plan.text() + " (weights " +
         text(peak.weights) + ", a chunk " + text(peak.activations) + ")";
}

// The pipeline under the first plan by which every job keeps to --max-memory. Under the last those
// that do not are refused, like the jobs that the models cannot serve.
WorldPipeline load(const cxxopts::ParseResult& args, JobList& jobs, const PromptEmbeds& embeds,
                   Console& console) {
  const auto cap = max_memory(args);
  const std::vector<MemoryPlan> plans = memory_plans(args);
  WorldPipeline pipeline;
  for (std::size_t i = 0;; ++i) {
    const MemoryPlan& plan = plans[i];
    const bool last = i + 1 == plans.size();
    if (i == 0 || plan.offload != plans[i - 1].offload) {
      pipeline = {};
      pipeline = load_pipeline(args, plan.offload);
    }
    if (plan.tiling) pipeline.vae->set_tiling(Tiling{});
    PeakMemory most;
    bool fits = true;
    const auto check = [&](const Job& job) {
      const WorldRequest request = checked_request(job, pipeline, embeds);
      if (!cap || !fits) return;
      const PeakMemory peak = predict_peak(pipeline, request);
      if (peak.total() > *cap && !last) fits = false;
      require(peak.total() <= *cap || !last, "--max-memory ", text_of(args, "max-memory"), ": ",
              predicted(peak, plan),
              "; lower --chunk-frames, --height or --width, or take --dtype ", "bfloat16");
      if (peak.total() > most.total()) most = peak;
    };
    if (jobs.size() > 1 || cap) jobs.each(check);
    if (!fits) continue;
    if (cap && jobs.any_left()) console.line("note: " + predicted(most, plan));
    return pipeline;
  }
}

std::function<void(int64_t, int64_t)> progress_on(Console& console) {
  const auto begin = std::chrono::steady_clock::now();
  return [&console, begin](int64_t done, int64_t steps) {
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    const double left =
        spent.count() / static_cast<double>(done) * static_cast<double>(steps - done);
    console.progress({.done = done, .total = steps, .seconds_left = left, .details = {}},
                     done == steps || done % 10 == 0);
  };
}

void generate(const Job& job, WorldPipeline& pipeline, const PromptEmbeds& embeds, const Json& sums,
              Guardrail& guardrail, Console& console) {
  WorldRequest request = make_request(job.args);
  take_prompts(job, embeds, request);
  const GivenFootage footage = take_files(job.args, pipeline, request);
  request.progress = progress_on(console);
  request = with_defaults(pipeline, request);
  if (!request.prompt_embeds.defined())
    console.line("note: no text embeddings given; generating without text (zeros)");
  Output output(job.args, request, world_family(pipeline.index.class_name, "pipeline").picture);
  const int64_t keep = footage.real.defined() ? footage.real.size(0) : 1;
  try {
    generate_world(pipeline, request, [&](const World& part) { output.add(part, keep); });
    output.finish();
  } catch (...) {
    output.discard();
    throw;
  }
  const std::string clip = text_of(job.args, "output");
  const Guardrail::Verdict verdict =
      guardrail.ask({{"stage", "clip"}, {"clip", clip}, {"prompt", said_of(job.args)}});
  write_record(job.args, pipeline, request, footage, sums, guardrail.record(verdict), output);
  if (!verdict.allowed) {
    output.discard();
    fail("--guardrail: ", clip, " is refused, and not kept: ", verdict.reason);
  }
  console.line("wrote " + clip);
}

int run(int argc, char** argv) {
  cxxopts::Options options = make_options();
  const cxxopts::ParseResult args = options.parse(argc, argv);
  if (args.count("help")) return std::cout << options.help() << '\n', 0;
  parse_usage([&] {
    require(args.unmatched().empty(), "expected options only, got ", args.unmatched().front());
    require(args.count("output") > 0, "--output is missing: the clip to write (.mp4), or a folder ",
            "with --prompts");
  });
  register_builtin_models();
  Console console(std::cerr, ::isatty(STDERR_FILENO) != 0);
  JobList jobs(read_jobs(options, args, argc, argv),
               [&](const std::string& failure) { console.line("cosmos-generate: " + failure); });
  Guardrail guardrail(text_of(args, "guardrail"));
  jobs.each([&](const Job& job) {
    make_request(job.args);
    std::vector<std::string> prompts = prompts_of(job.args);
    if (prompts.empty()) prompts.push_back("");
    for (const std::string& prompt : prompts)
      if (prompt != kBlankPrompt)
        guardrail.check_prompt(prompt, text_of(job.args, "negative-prompt"));
  });
  PromptEmbeds embeds(fs::path(text_of(args, "output")) / ".text_embeds");
  if (const std::string note = encode_prompts(args, jobs, embeds); !note.empty())
    console.line(note);
  if (!jobs.any_left()) jobs.finish();
  WorldPipeline pipeline = load(args, jobs, embeds, console);
  const Json sums = checksums(args);
  jobs.each([&](const Job& job) { generate(job, pipeline, embeds, sums, guardrail, console); });
  if (args.count("save-pipeline")) save_world_pipeline(text_of(args, "save-pipeline"), pipeline);
  jobs.finish();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("cosmos-generate", argc, argv, run);
}
