#include "modules/native/native_keys.h"

#include <array>

#include "modules/hub/atomic_file.h"

namespace cosmos::modules {
namespace {

constexpr std::array<const char*, 3> kContainers = {"model.", "module.", "state_dict."};
constexpr std::array<const char*, 2> kWrappers = {"_checkpoint_wrapped_module.", "_orig_mod."};
constexpr const char* kNet = "net.";
constexpr const char* kEma = "net_ema.";

bool starts(const std::string& text, const char* prefix) {
  return text.rfind(prefix, 0) == 0;
}

std::string without_containers(std::string key) {
  for (bool again = true; again;) {
    again = false;
    for (const char* container : kContainers)
      if (starts(key, container)) {
        key.erase(0, std::string(container).size());
        again = true;
      }
  }
  return key;
}

// Modules that wrap another one in the middle of a path: at the start of a component only.
std::string without_wrappers(std::string name) {
  for (const std::string wrapper : kWrappers)
    for (std::size_t at = 0; (at = name.find(wrapper, at)) != std::string::npos;)
      if (at == 0 || name[at - 1] == '.') {
        name.erase(at, wrapper.size());
      } else {
        ++at;
      }
  return name;
}

}  // namespace

NativeKeys unwrap_keys(const WeightSource& source, const std::string& where, bool ema) {
  std::map<std::string, std::string> plain;  // file key -> key without containers
  bool has_net = false, has_ema = false;
  for (const auto& [key, tensor] : source.tensors) {
    const std::string& name = plain[key] = without_containers(key);
    has_net = has_net || starts(name, kNet);
    has_ema = has_ema || starts(name, kEma);
  }
  require(!ema || has_ema, where, ": holds no averages (net_ema.*)");
  const bool take_ema = has_ema && (ema || !has_net);
  const std::string prefix = take_ema ? kEma : has_net ? kNet : "";
  NativeKeys keys;
  for (const auto& [key, name] : plain) {
    if (!starts(name, prefix.c_str())) {
      const bool other = starts(name, kNet) || starts(name, kEma);
      keys.dropped.push_back({key, other ? take_ema ? "the averages were taken in its place"
                                                    : "an average; --ema takes the averages"
                                         : "lies outside the network (" + prefix + "*)"});
      continue;
    }
    const std::string inner = without_wrappers(name.substr(prefix.size()));
    const bool added = keys.tensors.emplace(inner, source.tensors.at(key)).second;
    require(added, where, ": ", printable(key), " and ", printable(keys.spelled[inner]),
            " are both ", printable(inner));
    keys.spelled[inner] = key;
  }
  for (const auto& [key, what] : source.others) keys.dropped.push_back({key, what + ", no tensor"});
  return keys;
}

}  // namespace cosmos::modules
