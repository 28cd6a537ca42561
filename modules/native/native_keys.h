#pragma once

// Keys of a native checkpoint as the network's own names.

#include <map>
#include <string>
#include <vector>

#include "modules/hub/lazy_tensor.h"
#include "modules/native/import.h"

namespace cosmos::modules {

struct NativeKeys {
  LazyTensors tensors;                         ///< by the network's name
  std::map<std::string, std::string> spelled;  ///< network's name -> key in the file
  std::vector<KeyNote> dropped;
};

/// Looks through wrappers of dicts and modules. Of a file with `net.` and `net_ema.` one is taken;
/// keys beside them (optimizer, counters) are dropped. Throws Error when two keys become one, or
/// `ema` finds no averages.
NativeKeys unwrap_keys(const WeightSource& source, const std::string& where, bool ema);

}  // namespace cosmos::modules
