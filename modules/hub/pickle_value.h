#pragma once

// What a pickle of a checkpoint can hold once it is read: numbers, texts, containers, tensors, and
// plain records of a few known classes. Nothing of it ever ran code.

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "modules/core/tensor.h"

namespace cosmos::modules {

/// A stretch of elements that the file keeps apart from the pickle.
struct PickledStorage {
  std::string key;                                   ///< names the bytes: archive/data/KEY
  std::optional<torch::Dtype> dtype = std::nullopt;  ///< none: bytes
  int64_t elements = 0;                              ///< of dtype, or bytes
};

/// A view into a storage, checked to lie inside it.
struct PickledTensor {
  PickledStorage storage;
  torch::Dtype dtype = torch::kFloat32;
  int64_t offset = 0;  ///< in elements
  std::vector<int64_t> shape, stride;
};

struct PickleValue {
  enum class Kind {
    kNone,
    kBool,
    kInteger,
    kReal,
    kText,
    kBytes,
    kList,
    kTuple,
    kDict,    ///< items: key, value, key, value ...
    kRecord,  ///< text: class; items: its state, or nothing when it has none
    kClass,   ///< text: the class or function named; integer: how to build it
    kDtype,   ///< integer: torch::Dtype
    kStorage,
    kTensor,
  };
  Kind kind = Kind::kNone;
  int64_t integer = 0;
  double real = 0;
  std::string text;
  std::vector<PickleValue*> items;
  std::shared_ptr<PickledTensor> tensor;  ///< of kStorage only the storage counts

  bool is(Kind other) const { return kind == other; }
  /// Value of a text key of a dict, or of a record's state; null when there is none.
  const PickleValue* find(const std::string& key) const;
  /// "a list of 3", "the text abc": for messages.
  std::string describe() const;
};

/// Owns every value of one pickle; values point at each other.
struct Pickle {
  std::deque<PickleValue> arena;
  const PickleValue* root = nullptr;
  uint64_t bytes = 0;  ///< consumed, the final STOP included
};

}  // namespace cosmos::modules
