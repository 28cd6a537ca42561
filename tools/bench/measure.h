#pragma once

// What the benchmarks of steps measure beside their time.

#include <chrono>
#include <fstream>
#include <iterator>
#include <sstream>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "modules/core/model.h"

namespace cosmos::tools {

/// Seconds since the kernel started this process.
inline double process_age() {
  std::ifstream stat("/proc/self/stat");
  std::string text((std::istreambuf_iterator<char>(stat)), {});
  std::istringstream fields(text.substr(text.rfind(')') + 2));
  std::string skipped;
  for (int i = 0; i < 19; ++i) fields >> skipped;  // the 22nd field of proc(5) is the start time
  double start_ticks = 0;
  fields >> start_ticks;
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<double>(now.tv_sec) + now.tv_nsec * 1e-9 -
         start_ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

inline int64_t peak_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

template <typename Call>
double seconds_of(const Call& call) {
  const auto start = std::chrono::steady_clock::now();
  call();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  return took.count();
}

/// `steps` calls of `step`, which returns its loss: step_s, loss, first_step_begins_s,
/// peak_memory_bytes.
template <typename Step>
Json measure(Step& step, int64_t steps) {
  Json result;
  result["first_step_begins_s"] = process_age();
  Json times = Json::array(), losses = Json::array();
  for (int64_t i = 0; i < steps; ++i)
    times.push_back(seconds_of([&] { losses.push_back(step()); }));
  result["step_s"] = times;
  result["loss"] = losses;
  result["peak_memory_bytes"] = peak_memory();
  return result;
}

}  // namespace cosmos::tools
