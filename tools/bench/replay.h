#pragma once

// The floor of a computation: its products, convolutions and attention, noted while it runs, and
// run again on tensors of their shapes with everything else left out.

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/record_function.h>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "modules/core/tensor.h"

namespace cosmos::tools {

class Replay {
 public:
  /// Notes what `fn` calls; an operator inside another one that counts is part of it.
  explicit Replay(const std::function<void()>& fn) {
    current() = this;
    const auto handle = at::addThreadLocalCallback(at::RecordFunctionCallback(&begin, &end)
                                                       .needsInputs(true)
                                                       .scopes({at::RecordScope::FUNCTION}));
    fn();
    at::removeCallback(handle);
    current() = nullptr;
    buffers_.clear();
  }

  /// Runs them, in their order.
  void operator()() const {
    const torch::NoGradGuard no_grad;
    for (const Call& call : calls_) {
      torch::jit::Stack stack(call.inputs);
      call.op.callBoxed(stack);
    }
  }
  std::size_t size() const { return calls_.size(); }

 private:
  struct Call {
    c10::OperatorHandle op;
    std::vector<c10::IValue> inputs;
  };
  struct Inside : at::ObserverContext {};

  static Replay*& current() {
    static thread_local Replay* replay = nullptr;
    return replay;
  }

  static bool counts(const std::string& name) {
    for (const char* start :
         {"aten::linear", "aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm", "aten::matmul",
          "aten::conv1d", "aten::conv2d", "aten::conv3d", "aten::convolution",
          "aten::mkldnn_convolution", "aten::scaled_dot_product", "aten::_scaled_dot_product"})
      if (name == start || (name.rfind(start, 0) == 0 && name.find("scaled_dot") != name.npos))
        return true;
    return false;
  }

  static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& record) {
    Replay* replay = current();
    if (!replay) return nullptr;
    const auto name = record.operator_name();
    if (!name || replay->inside_ || !counts(name->name)) return nullptr;
    replay->inside_ = true;
    Call call{.op = c10::Dispatcher::singleton().findSchemaOrThrow(name->name.c_str(),
                                                                   name->overload_name.c_str()),
              .inputs = {}};
    for (const c10::IValue& input : record.inputs()) call.inputs.push_back(replay->like(input));
    replay->calls_.push_back(std::move(call));
    return std::make_unique<Inside>();
  }
  static void end(const at::RecordFunction&, at::ObserverContext* context) {
    if (context && current()) current()->inside_ = false;
  }

  // Tensors of one shape and layout share their numbers: a floor needs no memory of its own.
  c10::IValue like(const c10::IValue& input) {
    if (!input.isTensor() || !input.toTensor().defined()) return input;
    const Tensor& x = input.toTensor();
    const auto key = std::make_tuple(x.sizes().vec(), x.strides().vec(), x.scalar_type());
    Tensor& buffer = buffers_[key];
    if (!buffer.defined()) {
      buffer = torch::empty_strided(x.sizes(), x.strides(), x.options().requires_grad(false));
      if (buffer.is_floating_point()) {
        buffer.normal_();
      } else {
        buffer.zero_();
      }
    }
    return buffer;
  }

  std::map<std::tuple<std::vector<int64_t>, std::vector<int64_t>, c10::ScalarType>, Tensor>
      buffers_;
  std::vector<Call> calls_;
  bool inside_ = false;
};

}  // namespace cosmos::tools
