#include "modules/hub/model_weights.h"

#include <algorithm>
#include <map>
#include <set>

#include "modules/core/hollow.h"
#include "modules/core/linear.h"
#include "modules/core/weight_stacks.h"
#include "modules/hub/atomic_file.h"
#include "modules/hub/fp8_weights.h"
#include "modules/hub/json_file.h"
#include "modules/hub/weight_folder.h"

namespace cosmos::modules {
namespace {

std::set<const c10::TensorImpl*> adapter_tensors(const Model& model) {
  std::set<const c10::TensorImpl*> found;
  const auto add = [&](const torch::nn::Module& adapter) {
    for (const auto& tensor : adapter.parameters()) found.insert(tensor.unsafeGetTensorImpl());
    for (const auto& tensor : adapter.buffers()) found.insert(tensor.unsafeGetTensorImpl());
  };
  for (const auto& [name, linear] : named_linears(model))
    if (linear->adapter()) add(*linear->adapter());
  for (const auto& [name, module] : named_stacks(model))
    for (const auto& stack : module->stacks())
      if (stack.adapter) add(*stack.adapter);
  return found;
}

// "; 2 missing: a, b"
std::string list(const char* title, const std::vector<std::string>& items) {
  constexpr std::size_t kShown = 20;
  if (items.empty()) return "";
  std::string text = "; " + std::to_string(items.size()) + " " + title + ": ";
  for (std::size_t i = 0; i < std::min(items.size(), kShown); ++i)
    text += (i > 0 ? ", " : "") + items[i];
  if (items.size() > kShown) text += ", and " + std::to_string(items.size() - kShown) + " more";
  return text;
}

std::string shape_of(const Tensor& tensor) {
  std::ostringstream text;
  text << tensor.sizes();
  return text.str();
}

bool is_number(const Tensor& tensor) {
  return tensor.is_floating_point() || tensor.is_complex();
}

// The first of `keys` that the file has; a tied weight may stand under any of its names.
const std::string* present_key(const std::vector<std::string>& keys, const TensorMap& tensors) {
  for (const auto& key : keys)
    if (tensors.count(key) > 0) return &key;
  return nullptr;
}

void check_fit(const Model& model, const std::vector<BaseTensor>& wanted, const TensorMap& tensors,
               const std::string& where) {
  std::vector<std::string> missing, unexpected, mismatched;
  std::set<std::string> known;
  for (const auto& entry : wanted) {
    known.insert(entry.keys.begin(), entry.keys.end());
    if (!present_key(entry.keys, tensors)) missing.push_back(entry.keys.front());
    for (const auto& key : entry.keys) {
      const auto found = tensors.find(key);
      if (found == tensors.end()) continue;
      const Tensor& given = found->second;
      if (given.sizes() != entry.tensor.sizes())
        mismatched.push_back(key + ": checkpoint has " + shape_of(given) + ", model wants " +
                             shape_of(entry.tensor));
      else if (is_number(given) != is_number(entry.tensor))
        mismatched.push_back(key + ": checkpoint has " +
                             std::string(c10::toString(given.scalar_type())) + ", model wants " +
                             c10::toString(entry.tensor.scalar_type()));
    }
  }
  for (const auto& [key, tensor] : tensors)
    if (known.count(key) == 0) unexpected.push_back(printable(key));
  require(missing.empty() && unexpected.empty() && mismatched.empty(), where,
          ": weights do not fit ", model.class_name(), list("missing", missing),
          list("unexpected", unexpected), list("of another shape or type", mismatched));
}

}  // namespace

std::vector<BaseTensor> base_tensors(const Model& model) {
  const auto adapters = adapter_tensors(model);
  std::vector<BaseTensor> found;
  std::map<const c10::TensorImpl*, std::size_t> position;
  const auto add = [&](const std::string& name, const Tensor& tensor) {
    const auto* identity = tensor.unsafeGetTensorImpl();
    const std::string key = model.file_key(name);
    if (!tensor.defined() || key.empty() || adapters.count(identity) > 0) return;
    const auto [entry, added] = position.emplace(identity, found.size());
    if (added) found.push_back({{}, {}, tensor});
    found[entry->second].names.push_back(name);
    found[entry->second].keys.push_back(key);
  };
  for (const auto& item : model.named_parameters()) add(item.key(), item.value());
  for (const auto& item : model.named_buffers()) add(item.key(), item.value());
  return found;
}

void load_weights(Model& model, const TensorMap& tensors, const std::string& where,
                  const TakeTensor& take) {
  const std::vector<BaseTensor> wanted = base_tensors(model);
  check_fit(model, wanted, tensors, where);
  torch::NoGradGuard no_grad;
  for (const auto& entry : wanted) {
    const Tensor& tensor = tensors.at(*present_key(entry.keys, tensors));
    take ? take(entry, tensor) : void(Tensor(entry.tensor).copy_(tensor));
  }
}

void read_folder(Model& model, const std::filesystem::path& dir, const TakeTensor& take) {
  const auto round = [&](const BaseTensor& place, const Tensor& tensor) {
    take(place, tensor.is_floating_point() ? tensor.to(torch::kFloat32) : tensor);
  };
  load_weights(model, model.from_file(WeightFolder(dir).tensors()), dir.string(), round);
}

torch::Dtype dtype_in(const Model& model, const std::string& name, const Tensor& tensor,
                      torch::Dtype dtype) {
  if (!tensor.is_floating_point()) return tensor.scalar_type();
  return model.keeps_float32(name) ? torch::kFloat32 : dtype;
}

void cast_model(Model& model, torch::Dtype dtype, torch::Device device) {
  torch::NoGradGuard no_grad;
  const auto cast = [&](const std::string& name, Tensor tensor) {
    const torch::Dtype wanted = dtype_in(model, name, tensor, dtype);
    if (tensor.scalar_type() == wanted && tensor.device() == device) return;
    const auto options = tensor.options().device(device).dtype(wanted);
    tensor.set_data(is_hollow(tensor) ? hollow(tensor.sizes(), options)
                                      : tensor.detach().to(device, wanted));
  };
  for (const auto& item : model.named_parameters()) cast(item.key(), item.value());
  for (const auto& item : model.named_buffers()) cast(item.key(), item.value());
}

torch::Dtype parse_dtype(const std::string& name) {
  if (name == "float32") return torch::kFloat32;
  if (name == "bfloat16") return torch::kBFloat16;
  if (name == "float16") return torch::kFloat16;
  if (name == "float64") return torch::kFloat64;
  fail("dtype ", printable(name), " is not known (float32, bfloat16, float16 or float64)");
}

std::string dtype_name(torch::Dtype dtype) {
  for (const char* name : {"float32", "bfloat16", "float16", "float64"})
    if (parse_dtype(name) == dtype) return name;
  fail("weights cannot be kept as ", c10::toString(dtype));
}

TensorMap file_tensors(const Model& model, std::optional<torch::Dtype> dtype) {
  TensorMap tensors;
  for (const auto& entry : base_tensors(model)) {
    const Tensor value = entry.tensor.detach();
    const bool cast =
        dtype && value.is_floating_point() && !model.keeps_float32(entry.names.front());
    tensors[entry.keys.front()] = cast ? value.to(*dtype) : value;
  }
  return tensors;
}

Json saved_config(const Model& model, std::optional<torch::Dtype> dtype) {
  Json config = model.config_json();
  config.erase("_name_or_path");
  if (!config.contains("architectures")) config["_class_name"] = model.class_name();
  if (dtype)
    for (const char* key : {"dtype", "torch_dtype"})
      if (config.contains(key)) config[key] = dtype_name(*dtype);
  return config;
}

std::string weights_base_name(const Model& model) {
  return model.config_json().contains("architectures") ? kTransformersWeights : kDiffusersWeights;
}

void save_model(const std::filesystem::path& dir, const Model& model, const SaveOptions& options) {
  TensorMap tensors = file_tensors(model, options.dtype);
  Json config = saved_config(model, options.dtype);
  if (options.fp8) {
    Fp8Weights rounded = fp8_weights(model, std::move(tensors));
    tensors = std::move(rounded.tensors);
    config["quantization_config"] = std::move(rounded.config);
  }
  save_weights(dir, weights_base_name(model), model.to_file(std::move(tensors)),
               options.max_shard_bytes);
  write_json(dir / "config.json", config);
}

}  // namespace cosmos::modules
