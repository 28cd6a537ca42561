#include "modules/registry.h"

#include <utility>
#include <vector>

#include "modules/hub/registry.h"

namespace cosmos::modules {

// One line a model. An explicit table: static registration would be dropped by the linker wherever
// nothing else of the file is used.
void register_builtin_models() {
  using Entry = std::pair<const char*, ModelFactory>;
  const std::vector<Entry> models = {
      // {"CosmosTransformer3DModel", [](const Json& config, const std::string& where) {...}},
  };
  for (const auto& [name, factory] : models) register_model(name, factory);
}

}  // namespace cosmos::modules
