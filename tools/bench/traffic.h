#pragma once

// Bytes that a computation moves when every operator runs by itself: what each of them reads and
// writes, by its tensors' sizes. Views and allocations move nothing.

#include <ATen/core/Tensor.h>
#include <ATen/record_function.h>
#include <algorithm>
#include <functional>
#include <set>
#include <string_view>
#include <vector>

namespace cosmos::tools {

class Traffic {
 public:
  /// Of the operators that `fn` calls, those inside other operators in place of the outer ones.
  static int64_t bytes(const std::function<void()>& fn) {
    current() = Traffic();
    const auto handle = at::addThreadLocalCallback(at::RecordFunctionCallback(&begin, &end)
                                                       .needsInputs(true)
                                                       .needsOutputs(true)
                                                       .scopes({at::RecordScope::FUNCTION}));
    fn();
    at::removeCallback(handle);
    return current().bytes_;
  }

 private:
  /// An operator that has not returned.
  struct Call {
    int64_t read = 0;
    std::set<const void*> storages;
    bool is_operator = false;   ///< or a region that somebody named
    bool moved_inside = false;  ///< operators that it called moved bytes: they count, it does not
  };

  static Traffic& current() {
    static thread_local Traffic traffic;
    return traffic;
  }

  template <typename Fn>
  static void each_tensor(const c10::IValue& value, Fn fn) {
    if (value.isTensor()) {
      if (value.toTensor().defined() && value.toTensor().has_storage()) fn(value.toTensor());
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector())
        if (tensor.defined() && tensor.has_storage()) fn(tensor);
    }
  }

  // An expanded tensor is no larger than its storage.
  static int64_t size_of(const at::Tensor& tensor) {
    return std::min<int64_t>(static_cast<int64_t>(tensor.nbytes()),
                             static_cast<int64_t>(tensor.storage().nbytes()));
  }

  static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& record) {
    Call call;
    call.is_operator = record.operator_name().has_value();
    if (!call.is_operator) return push(std::move(call));
    for (const c10::IValue& input : record.inputs())
      each_tensor(input, [&](const at::Tensor& x) {
        call.read += size_of(x);
        call.storages.insert(x.storage().unsafeGetStorageImpl());
      });
    return push(std::move(call));
  }

  static std::unique_ptr<at::ObserverContext> push(Call call) {
    current().calls_.push_back(std::move(call));
    return nullptr;
  }

  static void end(const at::RecordFunction& record, at::ObserverContext*) {
    Traffic& traffic = current();
    const Call call = std::move(traffic.calls_.back());
    traffic.calls_.pop_back();
    if (call.moved_inside) {
      if (!traffic.calls_.empty()) traffic.calls_.back().moved_inside = true;
      return;
    }
    if (!call.is_operator) return;
    const std::string_view name = record.name();
    const bool in_place = name.ends_with("_") || name.ends_with("_out");
    int64_t written = 0;
    for (const c10::IValue& output : record.outputs())
      each_tensor(output, [&](const at::Tensor& y) {
        if (in_place || call.storages.count(y.storage().unsafeGetStorageImpl()) == 0)
          written += size_of(y);
      });
    if (written == 0 || name.find("::empty") != name.npos || name.find("new_empty") != name.npos)
      return;
    traffic.bytes_ += call.read + written;
    if (!traffic.calls_.empty()) traffic.calls_.back().moved_inside = true;
  }

  std::vector<Call> calls_;
  int64_t bytes_ = 0;
};

}  // namespace cosmos::tools
