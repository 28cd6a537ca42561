// bench-world: what a generation is made of, timed: encoding and decoding a clip (Wan's tokenizer)
// and one sampling step (the DiT with a time for every frame, its text known); or the floor of
// each; or how long a checkpoint takes to its first step. One JSON object on stdout.
// tools/bench/world.sh runs it in pairs with diffusers.

#include <cxxopts.hpp>
#include <iostream>
#include <sys/mman.h>
#include <unistd.h>

#include "modules/dit/transformer.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/registry.h"
#include "modules/registry.h"
#include "modules/tokenizer/autoencoder_kl_wan.h"
#include "tools/bench/measure.h"
#include "tools/bench/replay.h"
#include "tools/program.h"

namespace {

using namespace cosmos;
using namespace cosmos::modules;

// The shapes of the benchmark, the same as in world_peer.py.
constexpr int64_t kFrames = 9, kHeight = 64, kWidth = 96;
constexpr int64_t kText = 512, kTextDim = 1024;

DitConfig dit_config(const std::string& shape) {
  DitConfig config;
  config.in_channels = 17;
  config.num_attention_heads = shape == "2b" ? 16 : 8;
  config.attention_head_dim = shape == "2b" ? 128 : 64;
  config.num_layers = shape == "2b" ? 28 : 8;
  config.text_embed_dim = kTextDim;
  config.extra_pos_embed_type.reset();
  return config;
}

std::shared_ptr<AutoencoderKLWan> make_vae() {
  return std::dynamic_pointer_cast<AutoencoderKLWan>(
      make_model({{"_class_name", "AutoencoderKLWan"}}, "bench"));
}

/// A step of Predict2.5: the network with one time a frame, then the latents moved by it.
class SamplingStep {
 public:
  explicit SamplingStep(CosmosTransformer3DModel& model)
      : model_(model), options_(model.parameters().front().options().requires_grad(false)) {
    inputs_.hidden_states = torch::randn({1, 16, 4, 24, 40}, options_);
    inputs_.condition_mask = torch::zeros({1, 1, 4, 24, 40}, options_);
    inputs_.encoder_hidden_states = torch::randn({1, kText, kTextDim}, options_);
    inputs_.timestep = torch::rand({1, 1, 4, 1, 1});
    inputs_.fps = 24;
    inputs_.padding_mask = torch::zeros({1, 1, 24, 40}, options_);
    inputs_.context_cache = std::make_shared<ContextCache>();
  }

  double operator()() {
    const torch::NoGradGuard no_grad;
    const Tensor velocity = model_.forward(inputs_);
    return (inputs_.hidden_states - 0.1 * velocity).mean().item<double>();
  }

 private:
  CosmosTransformer3DModel& model_;
  torch::TensorOptions options_;
  DitInputs inputs_;
};

/// `call` itself, or its floor: recorded in its second run, where texts are known already.
Json time_of(const std::function<double()>& call, bool floor, int64_t steps) {
  if (!floor) return tools::measure(call, steps);
  call();
  const tools::Replay replay([&] { call(); });
  const auto again = [&] {
    replay();
    return 0.0;
  };
  Json result = tools::measure(again, steps);
  result["operators"] = replay.size();
  return result;
}

Json measure_what(const std::string& what, bool floor, int64_t steps) {
  const torch::NoGradGuard no_grad;
  if (what == "step") {
    CosmosTransformer3DModel model(dit_config("small"));
    model.eval();
    SamplingStep step(model);
    return time_of([&] { return step(); }, floor, steps);
  }
  const auto vae = make_vae();
  vae->eval();
  const Tensor video = torch::rand({1, 3, kFrames, kHeight, kWidth}) * 2 - 1;
  const Tensor latents =
      torch::randn({1, 16, vae->latent_frames(kFrames), kHeight / 8, kWidth / 8});
  const bool encode = what == "encode";
  require(encode || what == "decode", "--what: expected encode, decode, step, write or start, got ",
          what);
  return time_of(
      [&] {
        const Tensor out = encode ? vae->encode(video).mode() : vae->decode(latents);
        return out.mean().item<double>();
      },
      floor, steps);
}

/// Bytes of the weights, and those of them that are in memory as this is asked.
Json residence(const Model& model) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  uint64_t bytes = 0, there = 0;
  for (const Tensor& weight : model.parameters()) {
    const auto at = reinterpret_cast<uintptr_t>(weight.const_data_ptr());
    const uintptr_t first = at / page * page, end = at + weight.nbytes();
    std::vector<unsigned char> pages((end - first + page - 1) / page);
    require(::mincore(reinterpret_cast<void*>(first), end - first, pages.data()) == 0, "mincore");
    bytes += weight.nbytes();
    for (std::size_t i = 0; i < pages.size(); ++i)
      if (pages[i] & 1)
        there += std::min(first + (i + 1) * page, end) - std::max(first + i * page, at);
  }
  return {{"weight_bytes", bytes}, {"resident_bytes", there}};
}

/// Loads the transformer of `dir` as cosmos-generate does, or with its weights copied, and takes
/// two steps: pages that were not there when the first began would make it longer than the second.
Json start(const std::string& dir, bool copied) {
  const auto model = std::dynamic_pointer_cast<CosmosTransformer3DModel>(
      load_model(dir, {.dtype = torch::kBFloat16, .mapped = !copied}));
  SamplingStep step(*model);
  Json result;
  const double asked = tools::seconds_of([&] { result = residence(*model); });
  result.update(tools::measure(step, 2));
  result["first_step_begins_s"] = result["first_step_begins_s"].get<double>() - asked;
  return result;
}

/// A checkpoint of random weights.
Json write(const std::string& dir, const std::string& shape) {
  CosmosTransformer3DModel model(dit_config(shape));
  save_model(dir, model, {.dtype = torch::kBFloat16});
  int64_t bytes = 0;
  for (const auto& weight : model.parameters()) bytes += weight.numel() * 2;
  return {{"bytes", bytes}};
}

int run(int argc, char** argv) {
  cxxopts::Options options("bench-world", "Times the parts of a generation, or their floor.");
  // clang-format off
  options.add_options()
    ("what", "encode, decode, step; write and start: a checkpoint and the way to its first step",
     cxxopts::value<std::string>()->default_value("step"))
    ("floor", "its products, convolutions and attention alone")
    ("copied", "start: weights copied out of the file's pages")
    ("model", "folder of write and start", cxxopts::value<std::string>()->default_value(""))
    ("shape", "of write: small, or 2b (4 GB)",
     cxxopts::value<std::string>()->default_value("small"))
    ("steps", "to time, the first included", cxxopts::value<int64_t>()->default_value("5"))
    ("threads", "CPU threads", cxxopts::value<int>()->default_value("2"))
    ("h,help", "this text");
  // clang-format on
  const auto args = options.parse(argc, argv);
  if (args.count("help")) {
    std::cout << options.help() << "\n";
    return 0;
  }
  torch::set_num_threads(args["threads"].as<int>());
  torch::manual_seed(0);
  register_builtin_models();
  const std::string what = args["what"].as<std::string>();
  const std::string model = args["model"].as<std::string>();
  const bool folder = what == "write" || what == "start", floor = args.count("floor") > 0;
  require(!folder || !model.empty(), "--model is missing");
  Json result = what == "write"   ? write(model, args["shape"].as<std::string>())
                : what == "start" ? start(model, args.count("copied") > 0)
                                  : measure_what(what, floor, args["steps"].as<int64_t>());
  result["what"] = what;
  result["by"] = floor ? "floor" : args.count("copied") ? "copied" : "cosmos";
  result["threads"] = torch::get_num_threads();
  std::cout << result.dump() << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("bench-world", argc, argv, run);
}
