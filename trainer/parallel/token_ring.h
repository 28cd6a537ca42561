#pragma once

// What the autograd functions of context parallelism share: how they keep the group of ranks from
// forward to backward.

#include <torch/csrc/autograd/custom_function.h>

#include "trainer/parallel/context_parallel.h"

namespace cosmos::trainer {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct RingHandle : torch::CustomClassHolder {
  explicit RingHandle(std::shared_ptr<TokenRing> ring) : ring(std::move(ring)) {}
  std::shared_ptr<TokenRing> ring;
};

inline void remember(AutogradContext* ctx, const c10::intrusive_ptr<RingHandle>& handle) {
  ctx->saved_data["ring"] = c10::IValue::make_capsule(handle);
}

inline TokenRing& recall(AutogradContext* ctx) {
  return *c10::static_intrusive_pointer_cast<RingHandle>(ctx->saved_data["ring"].toCapsule())->ring;
}

}  // namespace cosmos::trainer
