#pragma once

// The vision-language model of stages that look at clips.

#include <memory>
#include <string>

#include "modules/vlm/language_model.h"

namespace cosmos::curate {

/// Reads a Qwen2.5-VL or Qwen3-VL folder. Throws Error where it holds none with a vision tower.
std::shared_ptr<modules::LanguageModel> load_vision_model(const std::string& folder);

}  // namespace cosmos::curate
