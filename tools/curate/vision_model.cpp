#include "tools/curate/vision_model.h"

#include "modules/hub/registry.h"
#include "modules/registry.h"

namespace cosmos::curate {

std::shared_ptr<modules::LanguageModel> load_vision_model(const std::string& folder) {
  modules::register_builtin_models();
  auto model = std::dynamic_pointer_cast<modules::LanguageModel>(modules::load_model(folder));
  require(model && model->has_vision(), folder,
          ": expected a model with a vision tower (Qwen2.5-VL or Qwen3-VL, as Cosmos Reason)");
  return model;
}

}  // namespace cosmos::curate
