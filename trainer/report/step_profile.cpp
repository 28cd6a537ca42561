#include "trainer/report/step_profile.h"

#include <cstdlib>
#include <string>
#include <torch/csrc/autograd/profiler_kineto.h>
#include <torch/cuda.h>
#include <utility>

namespace cosmos::trainer {
namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;

StepProfile::StepProfile(ProfileConfig config, std::filesystem::path file)
    : config_(config), file_(std::move(file)) {}

StepProfile::~StepProfile() {
  range_.reset();
  if (running_) profiler::disableProfiler();  // the run ended in the middle: nothing is written
}

void StepProfile::begin(int64_t step) {
  if (config_.from == 0 || step < config_.from || step >= config_.from + config_.steps) return;
  if (!running_) {
    ::setenv("KINETO_LOG_LEVEL", "5", /*overwrite=*/0);  // it complains where there is no GPU
    const torch::profiler::impl::ProfilerConfig how(torch::profiler::impl::ProfilerState::KINETO,
                                                    config_.shapes, /*profile_memory=*/true);
    std::set<ActivityType> what = {ActivityType::CPU};
    if (torch::cuda::is_available()) what.insert(ActivityType::CUDA);
    profiler::prepareProfiler(how, what);
    profiler::enableProfiler(how, what,
                             {at::RecordScope::FUNCTION, at::RecordScope::USER_SCOPE,
                              at::RecordScope::BACKWARD_FUNCTION});
    running_ = true;
  }
  range_ = std::make_unique<ProfileRange>("step " + std::to_string(step));
}

bool StepProfile::end(int64_t step) {
  range_.reset();
  if (!running_ || step + 1 < config_.from + config_.steps) return false;
  running_ = false;
  const auto result = profiler::disableProfiler();
  std::filesystem::create_directories(file_.parent_path());
  result->save(file_.string());
  return true;
}

}  // namespace cosmos::trainer
