#pragma once

// --device, the same for every program that runs a model.

#include <cxxopts.hpp>
#include <string>

#include "modules/core/device.h"

namespace cosmos::tools {

inline void add_device_option(cxxopts::Options& options) {
  options.add_options()("device", "auto (a GPU where there is one), cpu, cuda or cuda:N",
                        cxxopts::value<std::string>()->default_value("auto"), "NAME");
}

/// Throws Error where it names no device of this machine.
inline torch::Device device_of(const cxxopts::ParseResult& parsed) {
  return modules::choose_device(parsed["device"].as<std::string>(), "--device");
}

}  // namespace cosmos::tools
