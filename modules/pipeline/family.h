#pragma once

// The generations of Cosmos pipelines, by the class name in model_index.json, and what differs
// between them. Numbers are the defaults of diffusers 0.42's pipelines.

#include <optional>
#include <string>

#include "modules/diffusion/formulation.h"

namespace cosmos::modules {

struct WorldFamily {
  const char* class_name;
  Formulation formulation;
  bool takes_frames;   ///< may start from a picture or a video
  bool needs_frames;   ///< must
  bool takes_control;  ///< has control nets
  bool picture;        ///< makes one frame
  int64_t height, width, frames, steps;
  double fps;
  double guidance;
  /// Network time of given frames; negative: that of the clip.
  double condition_time;
  /// Whether plain numbers as weights of controls are divided by max(1, their sum).
  bool normalizes_weights;
  /// Whether the frame rate reaches the network (RoPE).
  bool passes_fps;
};

/// Where the public code bases differ.
enum class Compat {
  kDiffusers,  ///< what diffusers' pipeline of the class computes
  kNvidia,     ///< NVIDIA's own samplers, levels and noise; see modules/pipeline/README.md
};

/// Throws Error, with the nearest name, when there is no such pipeline; `where` names the file.
WorldFamily world_family(const std::string& class_name, const std::string& where);
/// The same with NVIDIA's settings where those differ from diffusers'.
WorldFamily nvidia_settings(WorldFamily family);

}  // namespace cosmos::modules
