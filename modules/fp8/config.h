#pragma once

// How a model's products are made of 8-bit numbers, and which.

#include <cstdint>
#include <string>
#include <vector>

#include "modules/core/fields.h"

namespace cosmos::modules {

struct Fp8Config {
  std::string scaling = "current";
  int64_t history = 16;
  std::string gradient = "e5m2";
  bool power_of_two = false;
  bool gather = true;
  /// Names or wildcards as in LoraConfig::target_modules; empty: all within numbered blocks.
  std::vector<std::string> target_modules;
  std::vector<std::string> exclude_modules = {"*.norm*", "*.gate"};

  template <typename Visitor>
  void fields(Visitor& v) {
    v("scaling", scaling,
      "current: a tensor's scale from its own largest number; delayed: from those of the last "
      "steps; "
      "block: one for 128 numbers of an activation and for 128 x 128 of a weight (DeepSeek-V3)");
    v("history", history, "delayed: steps whose largest numbers count");
    v("gradient", gradient, "e5m2 (wide range) or e4m3 (more digits; DeepSeek-V3): of gradients");
    v("power_of_two", power_of_two, "scales are powers of two");
    v("gather", gather,
      "ranks gather the weights of 8-bit products in 8 bits: half of bf16's bytes, the same "
      "numbers");
    v("target_modules", target_modules,
      "linear layers by name or wildcard; empty: all in the model's blocks (a number in the path)");
    v("exclude_modules", exclude_modules, "names or wildcards that stay as they are");
  }
};

}  // namespace cosmos::modules
