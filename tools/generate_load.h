#pragma once

// The models of cosmos-generate, loaded so that they keep to --max-memory.

#include <cxxopts.hpp>
#include <optional>
#include <string>
#include <vector>

#include "modules/diffusion/scheduler_config.h"
#include "modules/hub/model_weights.h"
#include "modules/lora/files.h"
#include "modules/pipeline/memory.h"
#include "tools/byte_size.h"
#include "tools/device_option.h"
#include "tools/generate_request.h"
#include "trainer/report/console.h"

namespace cosmos::tools {

inline bool always_offload(const cxxopts::ParseResult& args) {
  const std::string offload = args["offload"].as<std::string>();
  require(offload == "auto" || offload == "none" || offload == "blocks",
          "--offload: expected auto, none or blocks, got ", offload);
  return offload == "blocks";
}

inline std::optional<int64_t> max_memory(const cxxopts::ParseResult& args) {
  if (!args.count("max-memory")) return std::nullopt;
  return parse_bytes(text_of(args, "max-memory"), "--max-memory");
}

inline modules::LoadOptions load_options(const cxxopts::ParseResult& args) {
  return {.dtype = modules::parse_dtype(args["dtype"].as<std::string>()),
          .device = device_of(args),
          .offload = always_offload(args),
          .mapped = true};
}

inline modules::WorldPipeline load_pipeline(const cxxopts::ParseResult& args, bool offload) {
  modules::LoadOptions options = load_options(args);
  options.offload = offload;
  const bool whole = args.count("pipeline") > 0;
  require(whole || (args.count("transformer") && args.count("vae")),
          "expected --pipeline DIR, or --transformer DIR with --vae DIR");
  WorldPipeline pipeline =
      whole ? load_world_pipeline(text_of(args, "pipeline"), options)
            : load_world_components(text_of(args, "transformer"), text_of(args, "vae"),
                                    text_of(args, "scheduler"), options);
  for (const std::string& item : list_of(args, "controlnet")) {
    const auto equal = item.find('=');
    require(equal != std::string::npos && equal > 0, "--controlnet ", item, ": expected NAME=DIR");
    add_control_net(pipeline, item.substr(0, equal), item.substr(equal + 1), options);
  }
  if (args.count("distilled"))
    pipeline.scheduler = pipeline.index.class_name == "CosmosTransfer1Pipeline"
                             ? modules::scheduler_json(modules::OneStepConfig{})
                             : modules::scheduler_json(modules::DistilledConfig{});
  if (args.count("adapter")) {
    load_adapter(*pipeline.transformer, text_of(args, "adapter"));
    pipeline.transformer->eval();
  }
  return pipeline;
}

/// A way to need less memory.
struct MemoryPlan {
  bool offload = false, tiling = false;

  std::string text() const {
    if (!offload && !tiling) return "";
    return std::string(" with ") + (tiling ? "VAE tiling" : "") +
           (tiling && offload ? " and " : "") + (offload ? "block offload" : "");
  }
};

/// In the order in which they are tried: tiling blends seams, offload reads every weight again at
/// every step. Without --max-memory the first one alone.
inline std::vector<MemoryPlan> memory_plans(const cxxopts::ParseResult& args) {
  const auto cap = max_memory(args);
  const bool offload = always_offload(args), may = args["offload"].as<std::string>() == "auto";
  const bool tiling = args.count("vae-tiling") > 0;
  if (!cap) return {{.offload = offload, .tiling = tiling}};
  const fs::path transformer = args.count("pipeline")
                                   ? fs::path(text_of(args, "pipeline")) / "transformer"
                                   : fs::path(text_of(args, "transformer"));
  const bool fits = !may || !fs::is_directory(transformer) ||
                    modules::weights_in(transformer, load_options(args).dtype) <= *cap;
  std::vector<MemoryPlan> plans;
  for (const bool offloaded : {false, true})
    for (const bool tiled : {false, true}) {
      if (offloaded ? !offload && !may : offload || !fits) continue;
      if (tiled || !tiling) plans.push_back({.offload = offloaded, .tiling = tiled});
    }
  return plans;
}

}  // namespace cosmos::tools
