#include "trainer/loop/kept_results.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <algorithm>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

namespace cosmos::trainer {
namespace {

/// A dispatch key below autograd that nothing in LibTorch uses: without a scope it is never set.
constexpr c10::DispatchKey kKey = c10::DispatchKey::Fake;

}  // namespace

struct KeptResults::Scope::State {
  KeptResults& results;
  Run run;
  State* outer;
  c10::impl::IncludeDispatchKeyGuard guard{kKey};
  static thread_local State* current;
};
thread_local KeptResults::Scope::State* KeptResults::Scope::State::current = nullptr;

KeptResults::Scope::Scope(KeptResults& results, Run run)
    : state_(new State{.results = results, .run = run, .outer = State::current}) {
  results.next_.clear();
  State::current = state_.get();
}

KeptResults::Scope::~Scope() {
  State::current = state_->outer;
}

bool KeptResults::unchanged(const Call& call) {
  for (std::size_t i = 0; i < call.results.size(); ++i)
    if (call.results[i].isTensor() && call.results[i].toTensor().defined() &&
        call.results[i].toTensor()._version() != call.versions[i])
      return false;
  return true;
}

int64_t KeptResults::bytes() const {
  int64_t bytes = 0;
  for (const auto& [name, calls] : calls_)
    for (const Call& call : calls)
      for (const c10::IValue& result : call.results)
        if (result.isTensor() && result.toTensor().defined())
          bytes += static_cast<int64_t>(result.toTensor().nbytes());
  return bytes;
}

struct KeptResultsKernel {
  /// Stands for an operator while a scope lives.
  static void run(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                  torch::jit::Stack* stack) {
    KeptResults::Scope::State& scope = *KeptResults::Scope::State::current;
    const std::string& name = op.schema().name();
    std::vector<KeptResults::Call>& calls = scope.results.calls_[name];
    if (scope.run == KeptResults::Run::kAgain) {
      const std::size_t number = scope.results.next_[name]++;
      if (number < calls.size() && KeptResults::unchanged(calls[number])) {
        torch::jit::drop(*stack, op.schema().arguments().size());
        for (const c10::IValue& kept : calls[number].results) stack->push_back(same_data(kept));
        return;
      }
    }
    compute(op, keys, stack);
    if (scope.run == KeptResults::Run::kFirst) calls.push_back(keep(op, *stack));
  }

 private:
  /// The tensor without its place in a graph; changes in place are seen by both.
  static c10::IValue same_data(const c10::IValue& value) {
    return value.isTensor() && value.toTensor().defined() ? value.toTensor().tensor_data() : value;
  }

  static void compute(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                      torch::jit::Stack* stack) {
    // Backward will want the log-sum-exp, though nothing here requires gradients yet.
    const auto& arguments = op.schema().arguments();
    for (std::size_t i = 0; i < arguments.size(); ++i)
      if (arguments[i].name() == "compute_log_sumexp" || arguments[i].name() == "compute_logsumexp")
        torch::jit::peek(*stack, i, arguments.size()) = true;
    const c10::impl::ExcludeDispatchKeyGuard inside(kKey);
    op.redispatchBoxed(keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, kKey), stack);
  }

  static KeptResults::Call keep(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
    KeptResults::Call call;
    for (const c10::IValue& result : torch::jit::last(stack, op.schema().returns().size())) {
      call.results.push_back(same_data(result));
      call.versions.push_back(
          result.isTensor() && result.toTensor().defined() ? result.toTensor()._version() : 0);
    }
    return call;
  }
};

namespace {

void keep_or_answer(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                    torch::jit::Stack* stack) {
  KeptResultsKernel::run(op, keys, stack);
}

}  // namespace

TORCH_LIBRARY_IMPL(_, Fake, m) {
  m.fallback(torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(aten, Fake, m) {
  for (const char* name :
       {"_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
        "_flash_attention_forward", "_efficient_attention_forward"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&keep_or_answer>());
}

}  // namespace cosmos::trainer
