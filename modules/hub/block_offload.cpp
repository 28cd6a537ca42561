#include "modules/hub/block_offload.h"

#include <ATen/ThreadLocalState.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <limits>
#include <sys/mman.h>
#include <unistd.h>

#include "modules/hub/model_weights.h"

namespace cosmos::modules {
namespace {

// A parameter that is not there: one NaN seen everywhere, so that whoever reads it shows.
Tensor stand_in(const Tensor& parameter, const torch::TensorOptions& options) {
  return torch::full({}, std::numeric_limits<double>::quiet_NaN(), options)
      .expand(parameter.sizes());
}

// Advice that loses nothing, on the whole pages under a tensor.
void advise(const Tensor& mapped, int advice) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(mapped.data_ptr());
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t end = (begin + mapped.nbytes()) / page * page;
  if (first < end) ::madvise(reinterpret_cast<void*>(first), end - first, advice);
}

bool computes_on_file(const Tensor& file, const torch::TensorOptions& options) {
  return options.device().is_cpu() && file.scalar_type() == options.dtype().toScalarType();
}

}  // namespace

BlockOffload::BlockOffload(Model& model, const TensorMap& tensors, const std::string& where,
                           const LoadOptions& options)
    : device_(options.device) {
  const torch::NoGradGuard no_grad;
  std::map<const c10::TensorImpl*, bool> parameters;
  for (const Tensor& parameter : model.parameters())
    parameters[parameter.unsafeGetTensorImpl()] = true;
  load_weights(model, tensors, where, [&](const BaseTensor& place, const Tensor& file) {
    Tensor tensor = place.tensor;
    const auto wanted = tensor.options()
                            .requires_grad(std::nullopt)
                            .device(device_)
                            .dtype(dtype_in(model, place.names.front(), tensor, options.dtype));
    if (!parameters.count(tensor.unsafeGetTensorImpl())) {
      tensor.set_data(file.to(wanted));
      return;
    }
    Source source{.file = file, .options = wanted, .absent = stand_in(tensor, wanted)};
    if (!device_.is_cpu()) source.file = file.to(wanted.device(torch::kCPU)).pin_memory();
    tensor.set_requires_grad(false);
    tensor.set_data(source.absent);
    sources_.emplace(tensor.unsafeGetTensorImpl(), std::move(source));
  });
}

BlockOffload::~BlockOffload() {
  if (ahead_.valid()) ahead_.wait();
}

BlockOffload::Weights BlockOffload::fetch(torch::nn::Module& block) const {
  const torch::NoGradGuard no_grad;
  Weights weights;
  for (const Tensor& parameter : block.parameters()) {
    const auto found = sources_.find(parameter.unsafeGetTensorImpl());
    if (found == sources_.end()) continue;  // an adapter's
    const Source& source = found->second;
    if (computes_on_file(source.file, source.options)) advise(source.file, MADV_WILLNEED);
    weights.emplace_back(parameter, source.file.to(source.options, /*non_blocking=*/true));
  }
  return weights;
}

BlockOffload::Weights BlockOffload::take(const std::string& name, torch::nn::Module& block) {
  if (ahead_.valid()) {
    Weights weights = ahead_.get();
    if (ahead_name_ == name) return weights;
  }
  return fetch(block);
}

void BlockOffload::read_ahead(const std::string& name) {
  const auto next = next_.find(name);
  if (next == next_.end() || next->second == name) return;
  ahead_name_ = next->second;
  torch::nn::Module& block = *blocks_.at(ahead_name_);
  if (device_.is_cpu()) {
    // The thread's tensors count with those of the one that computes (ops/core/peak_memory.h).
    ahead_ = std::async(std::launch::async, [this, &block, state = at::ThreadLocalState()] {
      const at::ThreadLocalStateGuard guard(state);
      return fetch(block);
    });
    return;
  }
  const c10::impl::VirtualGuardImpl device(device_.type());
  const c10::Stream computing = device.getStream(device_);
  const c10::Stream copying = device.getStreamFromGlobalPool(device_);
  Weights weights;
  {
    const c10::StreamGuard guard(copying);
    weights = fetch(block);
  }
  for (const auto& [parameter, value] : weights) value.record_stream(computing);
  auto arrived = std::make_shared<c10::Event>(device_.type());
  arrived->record(copying);
  ahead_ = std::async(std::launch::deferred, [weights = std::move(weights), arrived, computing] {
    arrived->block(computing);
    return weights;
  });
}

void BlockOffload::let_go(const Weights& weights) const {
  for (const auto& [parameter, value] : weights) {
    const Source& source = sources_.at(parameter.unsafeGetTensorImpl());
    Tensor(parameter).set_data(source.absent);
    if (computes_on_file(source.file, source.options)) advise(source.file, MADV_COLD);
  }
}

Tensors BlockOffload::run(const std::string& name, torch::nn::Module& block, const Tensors& inputs,
                          const BlockFn& fn) {
  require(!torch::GradMode::is_enabled(), name, ": a model with offloaded blocks has no gradients");
  blocks_[name] = &block;
  // What comes after a model's last block may be long in coming: nothing is read ahead for it.
  if (first_.empty()) first_ = name;
  if (name != first_) next_[last_] = name;
  last_ = name;
  const Weights weights = take(name, block);
  for (const auto& [parameter, value] : weights) Tensor(parameter).set_data(value);
  try {
    read_ahead(name);
    Tensors outputs = fn(inputs);
    // The next block waits for it anyway; so what is held does not hang on which thread is faster.
    if (ahead_.valid()) ahead_.wait();
    let_go(weights);
    return outputs;
  } catch (...) {
    let_go(weights);
    throw;
  }
}

}  // namespace cosmos::modules
