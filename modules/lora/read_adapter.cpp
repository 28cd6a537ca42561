#include <algorithm>
#include <cmath>

#include "modules/core/linear.h"
#include "modules/hub/atomic_file.h"
#include "modules/hub/safetensors.h"
#include "modules/lora/adapter_file.h"
#include "modules/lora/attach.h"
#include "modules/lora/files.h"

namespace cosmos::modules {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPeftConfig = "adapter_config.json";
constexpr const char* kPeftWeights = "adapter_model.safetensors";
constexpr const char* kDiffusersWeights = "pytorch_lora_weights.safetensors";
constexpr const char* kDiffusersConfig = "lora_adapter_metadata";

enum class Role { kA, kB, kMagnitude, kAlpha };

struct Suffix {
  const char* text;
  Role role;
};
// PEFT; diffusers before PEFT; kohya's.
constexpr Suffix kSuffixes[] = {
    {".lora_A.weight", Role::kA},
    {".lora_B.weight", Role::kB},
    {".lora_A.default.weight", Role::kA},
    {".lora_B.default.weight", Role::kB},
    {".lora.down.weight", Role::kA},
    {".lora.up.weight", Role::kB},
    {".lora_down.weight", Role::kA},
    {".lora_up.weight", Role::kB},
    {".lora_magnitude_vector", Role::kMagnitude},
    {".lora_magnitude_vector.weight", Role::kMagnitude},
    {".alpha", Role::kAlpha},
};

void place(AdapterFile& file, const std::string& key, const std::string& prefix,
           const Tensor& tensor) {
  require(key.rfind(prefix, 0) == 0, file.where, ": ", printable(key), " does not begin with ",
          prefix, " as the other keys do (an adapter of several components is not supported)");
  for (const auto& [text, role] : kSuffixes) {
    if (!key.ends_with(text)) continue;
    const std::size_t end = key.size() - std::char_traits<char>::length(text);
    require(end > prefix.size(), file.where, ": ", printable(key), " names no module");
    AdapterLayer& layer = file.layers[key.substr(prefix.size(), end - prefix.size())];
    if (role == Role::kAlpha) {
      require(tensor.numel() == 1, file.where, ": ", printable(key), ": expected one number");
      layer.alpha = tensor.to(torch::kFloat64).item<double>();
      return;
    }
    Tensor& slot = role == Role::kA ? layer.A : role == Role::kB ? layer.B : layer.magnitude;
    require(!slot.defined(), file.where, ": ", printable(key),
            " is given twice under two spellings");
    slot = tensor;
    return;
  }
  fail(file.where, ": ", printable(key), " is not a LoRA tensor (expected ...lora_A.weight, ",
       "...lora_B.weight, ...lora_magnitude_vector or the lora.down/lora.up spelling)");
}

// "transformer." when every key begins with it; "" for files of a bare model.
std::string common_prefix(const TensorMap& tensors) {
  for (const char* prefix : {"base_model.model.", "transformer.", "unet.", "diffusion_model."})
    if (!tensors.empty() && tensors.begin()->first.rfind(prefix, 0) == 0) return prefix;
  return "";
}

// {"transformer.r": 4, ...} -> {"r": 4, ...}
Json strip_prefix(const Json& json, const std::string& prefix, const std::string& where) {
  require(json.is_object(), where, ": expected an object, got ", describe(json));
  Json plain = Json::object();
  for (const auto& [key, value] : json.items())
    plain[key.rfind(prefix, 0) == 0 ? key.substr(prefix.size()) : key] = value;
  return plain;
}

// PEFT wraps the stacks of one module around each other, the one registered first innermost: its
// keys are those of module.base_layer, the last one's those of the module.
void find_stacks(AdapterFile& file, const StackShapes& stacks) {
  for (const auto& [module, all] : stacks) {
    std::vector<std::string> adapted;
    for (const auto& stack : all)
      if (matches_modules(Json(file.config.target_parameters), stack.name))
        adapted.push_back(stack.name);
    std::string path = module;
    for (auto name = adapted.rbegin(); name != adapted.rend(); ++name, path += ".base_layer") {
      auto layer = file.layers.extract(path);
      require(!layer.empty(), file.where, ": target_parameters names ", *name, ", but there is no ",
              printable(path), ".lora_A.weight");
      file.stacks[*name] = std::move(layer.mapped());
    }
  }
}

// Number of weights that a layer's update is for: 1, but for stacks.
int64_t weights_of(const std::string& name, const StackShapes& stacks) {
  for (const auto& [module, all] : stacks)
    for (const auto& stack : all)
      if (stack.name == name) return stack.shape[0];
  return 1;
}

// Rank and alpha of each layer as the tensors have them, in place of patterns.
void settle_sizes(AdapterFile& file, const StackShapes& stacks, bool has_config) {
  find_stacks(file, stacks);
  LoraConfig& config = file.config;
  std::map<std::string, int64_t> ranks;
  std::map<std::string, double> alphas;
  const auto settle = [&](const std::string& name, const AdapterLayer& layer) {
    const std::string where = file.where + ": " + printable(name);
    const int64_t weights = weights_of(name, stacks);
    require(layer.A.defined() && layer.B.defined(), where, " has ",
            layer.A.defined() ? "lora_A without lora_B" : "no lora_A");
    require(layer.A.dim() == 2 && layer.B.dim() == 2 && layer.A.size(0) == layer.B.size(1) &&
                layer.A.size(0) > 0 && layer.A.size(0) % weights == 0,
            where, ": lora_A ", layer.A.sizes(), " and lora_B ", layer.B.sizes(),
            " do not share a rank");
    require(layer.magnitude.defined() == config.use_dora, where, ": ",
            config.use_dora ? "DoRA needs a lora_magnitude_vector"
                            : "has a lora_magnitude_vector, but use_dora is off");
    ranks[name] = layer.A.size(0) / weights;
    require(!has_config || ranks[name] == config.rank_of(name), where, ": the config says rank ",
            config.rank_of(name), ", the tensors have ", ranks[name]);
    // Without a word on alpha it equals the rank: the update is taken as it is.
    alphas[name] = layer.alpha  ? *layer.alpha
                   : has_config ? config.alpha_of(name)
                                : static_cast<double>(ranks[name]);
    require(std::isfinite(alphas[name]), where, ": alpha is not a number");
  };
  for (const auto& [name, layer] : file.layers) settle(name, layer);
  for (const auto& [name, layer] : file.stacks) settle(name, layer);
  if (!has_config) {
    config.rank = ranks.begin()->second;
    config.alpha = alphas.begin()->second;
  }
  config.rank_pattern.clear();
  config.alpha_pattern.clear();
  for (const auto& [name, rank] : ranks)
    if (rank != config.rank) config.rank_pattern[name] = rank;
  for (const auto& [name, alpha] : alphas)
    if (alpha != config.alpha) config.alpha_pattern[name] = alpha;
}

AdapterFile read_peft_folder(const fs::path& dir, const StackShapes& stacks) {
  AdapterFile file{.where = (dir / kPeftWeights).string()};
  file.config = lora_config_from_peft(read_json(dir / kPeftConfig), (dir / kPeftConfig).string());
  const TensorMap tensors = load_safetensors(dir / kPeftWeights);
  for (const auto& [key, tensor] : tensors) place(file, key, "base_model.model.", tensor);
  require(!file.layers.empty(), file.where, ": holds no tensors");
  settle_sizes(file, stacks, /*has_config=*/true);
  return file;
}

AdapterFile read_lora_file(const fs::path& path, const StackShapes& stacks) {
  AdapterFile file{.where = path.string()};
  const SafetensorsFile source(path);
  const TensorMap tensors = source.tensors();
  const std::string prefix = common_prefix(tensors);
  for (const auto& [key, tensor] : tensors) place(file, key, prefix, tensor);
  require(!file.layers.empty(), file.where, ": holds no tensors");
  const auto config = source.metadata().find(kDiffusersConfig);
  const bool has_config = config != source.metadata().end();
  if (has_config) {
    const std::string where = file.where + ": " + kDiffusersConfig;
    file.config = lora_config_from_peft(
        strip_prefix(parse_json(config->second, where), prefix, where), where);
  } else {
    file.config.target_modules = "all-linear";
    file.config.use_dora = file.layers.begin()->second.magnitude.defined();
  }
  settle_sizes(file, stacks, has_config);
  return file;
}

void check_against(const AdapterFile& file,
                   const std::map<std::string, std::shared_ptr<LinearImpl>>& linears,
                   const Model& model) {
  std::vector<std::string> names;
  for (const auto& [name, linear] : linears) names.push_back(name);
  for (const auto& [name, layer] : file.layers) {
    const auto found = linears.find(name);
    if (found == linears.end()) {
      const std::string near = nearest(name, names);
      fail(file.where, ": ", model.class_name(), " has no linear layer ", printable(name),
           near.empty() ? "" : " (did you mean " + near + "?)");
    }
    const int64_t in = found->second->in_features(), out = found->second->out_features();
    require(layer.A.size(1) == in && layer.B.size(0) == out, file.where, ": ", name,
            ": adapter has [", layer.B.size(0), ", ", layer.A.size(1), "], model wants [", out,
            ", ", in, "]");
    require(!layer.magnitude.defined() || layer.magnitude.numel() == out, file.where, ": ", name,
            ": lora_magnitude_vector has ", layer.magnitude.numel(), " entries, model wants ", out);
  }
}

void check_stacks(const AdapterFile& file, const StackShapes& stacks) {
  for (const auto& [module, all] : stacks)
    for (const auto& [name, shape] : all) {
      const auto layer = file.stacks.find(name);
      if (layer == file.stacks.end()) continue;
      const int64_t out = layer->second.B.size(0), in = layer->second.A.size(1);
      require(in == shape[2] && out == shape[1], file.where, ": ", name, ": adapter has [", out,
              ", ", in, "], model wants [", shape[1], ", ", shape[2], "] of each of ", shape[0]);
    }
}

StackShapes stack_shapes(const Model& model) {
  StackShapes shapes;
  for (const auto& [path, module] : named_stacks(model))
    for (const auto& stack : module->stacks())
      shapes[path].push_back({path + "." + stack.name, stack.weight.sizes().vec()});
  return shapes;
}

}  // namespace

AdapterFile read_adapter_file(const fs::path& path, const StackShapes& stacks) {
  if (is_file(path)) return read_lora_file(path, stacks);
  std::error_code error;
  require(fs::is_directory(path, error), path.string(), ": no such folder");
  if (is_file(path / kPeftConfig)) return read_peft_folder(path, stacks);
  if (is_file(path / kDiffusersWeights)) return read_lora_file(path / kDiffusersWeights, stacks);
  fail(path.string(), ": no adapter here: expected ", kPeftConfig, " with ", kPeftWeights, ", or ",
       kDiffusersWeights);
}

void load_adapter(Model& model, const fs::path& path) {
  const StackShapes stacks = stack_shapes(model);
  const AdapterFile file = read_adapter_file(path, stacks);
  std::map<std::string, std::shared_ptr<LinearImpl>> linears;
  LoraTargets targets;
  for (const auto& [name, linear] : named_linears(model)) {
    linears[name] = linear;
    if (file.layers.count(name) > 0) targets.modules.push_back(name);
  }
  for (const auto& [name, layer] : file.stacks) targets.parameters.push_back(name);
  check_against(file, linears, model);
  check_stacks(file, stacks);
  attach_lora(model, file.config, targets, /*seed=*/0);
  torch::NoGradGuard no_grad;
  for (const auto& [name, linear, adapter] : lora_layers(model)) {
    const AdapterLayer& layer = file.layers.at(name);
    adapter->lora_A.copy_(layer.A);
    adapter->lora_B.copy_(layer.B);
    if (layer.magnitude.defined()) adapter->magnitude.copy_(layer.magnitude.reshape(-1));
  }
  for (const auto& [name, module, stack, adapter] : lora_stacks(model)) {
    adapter->lora_A.copy_(file.stacks.at(name).A);
    adapter->lora_B.copy_(file.stacks.at(name).B);
  }
}

}  // namespace cosmos::modules
