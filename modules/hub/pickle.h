#pragma once

// A restricted reader of Python's pickle format (PEP 307, 3154; protocols 2 to 5, the opcodes that
// torch.save, torch.distributed.checkpoint and TorchScript emit). A pickle is a program; this
// interpreter knows how to build tensors, containers, numbers, texts and, for a fixed list of
// class names, plain records. Whatever else a pickle names (os.system, builtins.eval, a class of
// somebody's package) is an Error that says so, before anything is built from it.

#include <string>
#include <string_view>

#include "modules/hub/pickle_value.h"

namespace cosmos::modules {

struct PickleOptions {
  bool torchscript = false;  ///< `__torch__.*` classes are records of their attributes
};

/// Reads one pickle from the start of `bytes`. Throws Error, `where` first, on a malformed or
/// refused pickle, on containers that contain themselves, on nesting beyond 100, and when it would
/// take more memory than weights ever need.
Pickle read_pickle(std::string_view bytes, const std::string& where,
                   const PickleOptions& options = {});

/// What a name in a pickle stands for.
enum class PickleClass : int64_t {
  kDict,
  kTensorV2,
  kTensorV3,
  kParameter,
  kSize,
  kStorageType,
  kEncode,
  kFirstArgument,
  kPath,
  kRecord,
};

/// The value of the name `module`.`name`, a kClass or a kDtype. Throws Error for a name that is not
/// on the list.
PickleValue find_pickle_class(const std::string& module, const std::string& name,
                              const std::string& where, const PickleOptions& options);

/// The dtype that a storage class ("FloatStorage") holds; none for untyped bytes. Throws Error for
/// one that is not on the list.
std::optional<torch::Dtype> storage_dtype(const PickleValue& storage_class,
                                          const std::string& where);

}  // namespace cosmos::modules
