#pragma once

// The dispatcher's side of an operator, shared by every family.

#include <ATen/core/dispatch/Dispatcher.h>
#include <string>
#include <torch/library.h>

namespace cosmos::ops {

/// Handle of cosmos::<name>, whose C++ signature is Signature.
template <typename Signature>
c10::TypedOperatorHandle<Signature> operator_handle(const char* name) {
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow((std::string("cosmos::") + name).c_str(), "")
      .typed<Signature>();
}

}  // namespace cosmos::ops

/// Registers the same drivers for every device: they look at the tensors to see where to run, and
/// run nothing for meta tensors.
#define COSMOS_REGISTER_DEVICES(fn)     \
  TORCH_LIBRARY_IMPL(cosmos, CPU, m) {  \
    fn(m);                              \
  }                                     \
  TORCH_LIBRARY_IMPL(cosmos, CUDA, m) { \
    fn(m);                              \
  }                                     \
  TORCH_LIBRARY_IMPL(cosmos, Meta, m) { \
    fn(m);                              \
  }
