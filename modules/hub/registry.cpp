#include "modules/hub/registry.h"

#include <map>
#include <mutex>
#include <vector>

#include "modules/core/fields.h"
#include "modules/core/init.h"
#include "modules/hub/atomic_file.h"
#include "modules/hub/block_offload.h"
#include "modules/hub/json_file.h"
#include "modules/hub/mapped_weights.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/weight_folder.h"

namespace cosmos::modules {
namespace {

std::mutex& mutex() {
  static std::mutex instance;
  return instance;
}

std::map<std::string, ModelFactory>& factories() {
  static std::map<std::string, ModelFactory> instance;
  return instance;
}

std::string name_in(const Json& config, const std::string& where) {
  require(config.is_object(), where, ": expected an object, got ", describe(config));
  const auto text = [&](const Json& value, const char* key) {
    require(value.is_string(), where, ": ", key, ": expected a string, got ", describe(value));
    return value.get<std::string>();
  };
  if (config.contains("_class_name")) return text(config["_class_name"], "_class_name");
  if (config.contains("architectures")) {
    const Json& list = config["architectures"];
    require(list.is_array() && !list.empty(), where,
            ": architectures: expected a list of class names");
    return text(list[0], "architectures[0]");
  }
  require(config.contains("model_type"), where,
          ": names no class (_class_name, architectures or model_type)");
  return text(config["model_type"], "model_type");
}

ModelFactory find_factory(const std::string& name, const std::string& where) {
  const std::lock_guard lock(mutex());
  const auto found = factories().find(name);
  if (found != factories().end()) return found->second;
  std::vector<std::string> names;
  std::string all;
  for (const auto& [known, factory] : factories()) {
    names.push_back(known);
    all += (all.empty() ? "" : ", ") + known;
  }
  const std::string near = nearest(name, names);
  fail(where, ": no model is called ", printable(name),
       near.empty() ? " (known: " + all + ")" : " (did you mean " + near + "?)");
}

// New storage of the wanted type, uninitialised: the weights follow.
void prepare_storage(Model& model, const LoadOptions& options) {
  torch::NoGradGuard no_grad;
  const auto prepare = [&](const std::string& name, Tensor tensor) {
    const torch::Dtype dtype = dtype_in(model, name, tensor, options.dtype);
    if (dtype == tensor.scalar_type() && tensor.device() == options.device) return;
    tensor.set_data(
        torch::empty(tensor.sizes(), torch::TensorOptions(dtype).device(options.device)));
  };
  for (const auto& item : model.named_parameters()) prepare(item.key(), item.value());
  // A buffer that no file holds keeps its value.
  for (const auto& item : model.named_buffers())
    if (!model.file_key(item.key()).empty()) prepare(item.key(), item.value());
}

}  // namespace

void register_model(const std::string& name, ModelFactory factory) {
  const std::lock_guard lock(mutex());
  factories()[name] = std::move(factory);
}

bool is_known_model(const Json& config) {
  const std::string name = name_in(config, "config.json");
  const std::lock_guard lock(mutex());
  return factories().count(name) > 0;
}

std::shared_ptr<Model> make_model(const Json& config, const std::string& where) {
  const std::string name = name_in(config, where);
  const ModelFactory factory = find_factory(name, where);
  try {
    return factory(config, where);
  } catch (const c10::Error& error) {
    // A config may ask for shapes that no tensor can have; torch's message spans lines.
    const std::string reason = error.what_without_backtrace();
    fail(where, ": cannot build ", name, ": ", printable(reason.substr(0, reason.find('\n'))));
  }
}

std::shared_ptr<Model> load_model(const std::filesystem::path& dir, const LoadOptions& options) {
  std::error_code ignored;
  require(std::filesystem::is_directory(dir, ignored), dir.string(), ": no such folder");
  const std::filesystem::path config = dir / "config.json";
  std::shared_ptr<Model> model;
  {
    SkipInit skip;
    model = make_model(read_json(config), config.string());
  }
  const WeightFolder weights(dir);
  if (options.offload) {
    model->set_block_runner(std::make_shared<BlockOffload>(
        *model, model->from_file(weights.tensors()), dir.string(), options));
    model->eval();
    return model;
  }
  if (options.mapped) {
    load_mapped(*model, weights, options);
  } else {
    prepare_storage(*model, options);
    load_weights(*model, model->from_file(weights.tensors()), dir.string());
  }
  cast_model(*model, options.dtype, options.device);
  model->eval();
  return model;
}

}  // namespace cosmos::modules
