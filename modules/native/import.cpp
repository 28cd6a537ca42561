#include "modules/native/import.h"

#include <algorithm>
#include <optional>
#include <sstream>

#include "modules/core/init.h"
#include "modules/dit/action_transformer.h"
#include "modules/dit/multiview_transformer.h"
#include "modules/dit/native_names.h"
#include "modules/hub/atomic_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/registry.h"
#include "modules/native/native_keys.h"
#include "modules/tokenizer/discrete_video.h"
#include "modules/tokenizer/native_names.h"
#include "modules/transfer/multiview_control_net.h"
#include "modules/transfer/native_names.h"

namespace cosmos::modules {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kShown = 20;

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

// Everything one family's import works on.
struct Work {
  NativeKeys keys;
  const std::string& where;
  const ImportOptions& options;
  NativeImport result;
};

using Superfluous = std::string (*)(const std::string&);

// The keys that `map` knows, by Hugging Face name; they are taken out of `work`.
LazyTensors take(Work& work, const NameMap& map) {
  LazyTensors taken;
  for (auto entry = work.keys.tensors.begin(); entry != work.keys.tensors.end();) {
    const auto hf = map.to_hf(entry->first);
    if (!hf) {
      ++entry;
      continue;
    }
    taken[*hf] = entry->second;
    entry = work.keys.tensors.erase(entry);
  }
  return taken;
}

// What is left must be known to be superfluous.
void drop_rest(Work& work, Superfluous superfluous) {
  std::string unknown;
  std::size_t count = 0;
  for (const auto& [name, tensor] : work.keys.tensors) {
    const std::string reason = superfluous(name);
    const std::string& key = work.keys.spelled.at(name);
    if (!reason.empty()) {
      work.result.dropped.push_back({key, reason});
    } else if (++count <= kShown) {
      unknown += (count > 1 ? ", " : "") + printable(key);
    }
  }
  require(count == 0, work.where, ": ", count, " keys have no place in the ", work.result.family,
          ": ", unknown, count > kShown ? ", ..." : "");
}

// Knows names and shapes; its parameters are memory that nobody touches.
std::shared_ptr<Model> empty_model(const NativeComponent& component, const std::string& where) {
  SkipInit skip;
  return make_model(component.config, where);
}

// The class itself says which names and shapes it wants.
void check_component(const NativeComponent& component, const std::string& where) {
  const auto model = empty_model(component, where);
  std::string missing, other;
  std::size_t found = 0;
  for (const auto& place : base_tensors(*model)) {
    const auto key = std::find_if(place.keys.begin(), place.keys.end(), [&](const auto& name) {
      return component.tensors.count(name) > 0;
    });
    if (key == place.keys.end()) {
      missing += (missing.empty() ? "" : ", ") + place.keys.front();
      continue;
    }
    ++found;
    const LazyTensor& tensor = component.tensors.at(*key);
    if (place.tensor.sizes() != tensor.shape && other.empty()) {
      std::ostringstream text;
      text << *key << ": checkpoint has " << c10::IntArrayRef(tensor.shape) << ", model wants "
           << place.tensor.sizes();
      other = text.str();
    }
  }
  require(missing.empty(), where, ": the ", component.name, " lacks ", missing.substr(0, 2000));
  require(other.empty(), where, ": ", other);
  require(found == component.tensors.size(), where, ": the ", component.name, " has ",
          component.tensors.size(), " weights, its class ", found);
}

void add_component(Work& work, const std::string& name, Json config, LazyTensors tensors) {
  for (const auto& [key, value] : work.options.config.items()) {
    require(config.contains(key), work.where, ": ", printable(key),
            " is not a key of the config of ", config["_class_name"].get<std::string>());
    config[key] = value;
  }
  NativeComponent component{name, std::move(config), std::move(tensors)};
  check_component(component, work.where);
  work.result.components.push_back(std::move(component));
}

void note_rope(Work& work, const Json& config) {
  if (work.options.config.contains("rope_scale")) return;
  const auto scale = config["rope_scale"].get<std::vector<double>>();
  std::ostringstream text;
  text << "rope_scale [" << scale[0] << ", " << scale[1] << ", " << scale[2]
       << "] is the released model's of this kind; weights do not tell it";
  work.result.notes.push_back(text.str());
}

// The cameras' table tells all but the latent frames of a view.
MultiViewConfig multiview_config_of(Work& work, DitConfig dit, const LazyTensor& table) {
  require(table.shape.size() == 2 && table.shape[1] < dit.in_channels, work.where,
          ": view_embeddings.weight: expected [cameras, fewer than the stem's ", dit.in_channels,
          " channels], got ", c10::IntArrayRef(table.shape));
  MultiViewConfig config;
  config.n_cameras_emb = table.shape[0];
  config.view_condition_dim = table.shape[1];
  dit.in_channels -= config.view_condition_dim;
  // As released: 8 latent frames of the base's 24, whose positions are stretched over as many.
  dit.rope_scale = {static_cast<double>(config.state_t) / 24, 3, 3};
  config.dit = dit;
  work.result.notes.push_back("state_t " + std::to_string(config.state_t) +
                              " (latent frames of a view) is the released models'; weights do not "
                              "tell it");
  return config;
}

void import_control(Work& work, DitConfig& base, const LazyTensors& base_tensors,
                    const MultiViewConfig* views) {
  LazyTensors control = take(work, control_native_names());
  Json config = control_config_of(control, base, work.where);
  if (views) {
    MultiViewControlConfig own = {.net = ControlNetConfig::from_json(config, work.where),
                                  .state_t = views->state_t,
                                  .n_cameras_emb = views->n_cameras_emb,
                                  .view_condition_dim = views->view_condition_dim,
                                  .hint_layers = 0};
    own.net.in_channels -= own.view_condition_dim;
    while (control.count("hint_embed." + std::to_string(2 * own.hint_layers) + ".weight"))
      ++own.hint_layers;
    config = own.to_json();
  }
  const auto blocks = config["n_controlnet_blocks"].get<int64_t>();
  base.controlnet_block_every_n = (base.num_layers + blocks - 1) / blocks;
  for (const auto& [name, tensor] : base_tensors) {
    const std::string copy =
        name == "patch_embed.proj.weight" ? "patch_embed_base.proj.weight" : name;
    if (control_copy_of(copy) != name) continue;
    control[copy] = tensor;
    work.result.created.push_back({"controlnet/" + copy, "copy of the base's " + name});
  }
  add_component(work, "controlnet", std::move(config), std::move(control));
}

// What an embedder reads, from its width: 84 numbers are Bridge's 12 actions of 7 a clip, others
// four actions a latent frame.
Json action_config_of(Work& work, const DitConfig& dit, const LazyTensor& fc1) {
  require(fc1.shape.size() == 2 && fc1.shape[1] % 4 == 0, work.where,
          ": action_embedder_B_D.fc1.weight: expected [width, a multiple of 4], got ",
          c10::IntArrayRef(fc1.shape));
  const bool clip = fc1.shape[1] == 84;
  const ActionConfig config{.dit = dit,
                            .action_dim = clip ? 7 : fc1.shape[1] / 4,
                            .num_actions = clip ? 12 : 4,
                            .per_latent_frame = !clip};
  work.result.notes.push_back("an embedding reads " + std::to_string(config.num_actions) +
                              " actions of " + std::to_string(config.action_dim) +
                              (clip ? ", one a clip" : ", one a latent frame") +
                              "; weights tell their product only");
  return config.to_json();
}

void import_dit(Work& work, DitGeneration generation) {
  const bool transfer = work.keys.tensors.count("control_embedder.proj.1.weight") > 0;
  work.result.family = generation == DitGeneration::kPredict1 ? "Predict1 transformer"
                       : transfer                             ? "Transfer2.5 transformer"
                                                              : "Predict2 transformer";
  LazyTensors tensors = take(work, dit_native_names(generation));
  DitConfig config = dit_config_of(tensors, work.where);
  const LazyTensors base = tensors;
  const auto action = tensors.find("action_embedder_B_D.fc1.weight");
  std::optional<MultiViewConfig> views;
  if (const auto table = tensors.find("view_embeddings.weight"); table != tensors.end()) {
    views = multiview_config_of(work, config, table->second);
    config = views->dit;
  }
  if (transfer) import_control(work, config, base, views ? &*views : nullptr);
  if (views) views->dit = config;
  const Json json = views                     ? views->to_json()
                    : action != tensors.end() ? action_config_of(work, config, action->second)
                                              : config.to_json();
  note_rope(work, json);
  add_component(work, "transformer", json, std::move(tensors));
  drop_rest(work, dit_superfluous);
}

void import_transfer1(Work& work) {
  work.result.family = "Transfer1 control branch";
  LazyTensors tensors = take(work, transfer1_native_names());
  const Json config = transfer1_config_of(tensors, work.where);
  note_rope(work, config);
  add_component(work, "controlnet", config, std::move(tensors));
  drop_rest(work, transfer1_superfluous);
}

// The keys below `prefix`, taken out of `keys`.
NativeKeys below(NativeKeys& keys, const std::string& prefix) {
  NativeKeys part;
  for (auto entry = keys.tensors.begin(); entry != keys.tensors.end();) {
    if (entry->first.rfind(prefix, 0) != 0) {
      ++entry;
      continue;
    }
    const std::string name = entry->first.substr(prefix.size());
    part.spelled[name] = keys.spelled.at(entry->first);
    part.tensors[name] = entry->second;
    entry = keys.tensors.erase(entry);
  }
  return part;
}

constexpr const char* kBase = "base_model.net.";
constexpr const char* kBranch = "net_ctrl.";

// Transfer1's distillation trains a base and a branch as one network, and writes it as one file.
void import_distilled(Work& work) {
  NativeKeys base = below(work.keys, kBase), branch = below(work.keys, kBranch);
  drop_rest(work, dit_superfluous);
  work.keys = std::move(base);
  import_dit(work, DitGeneration::kPredict1);
  work.keys = std::move(branch);
  import_transfer1(work);
  work.result.family = "one-step Transfer1 network";
  work.result.one_step = true;
}

int64_t count_levels(const LazyTensors& tensors, const std::string& prefix,
                     const std::string& suffix) {
  int64_t count = 0;
  while (tensors.count(prefix + std::to_string(count) + suffix)) ++count;
  return count;
}

void import_wan(Work& work) {
  work.result.family = "Wan VAE";
  // The flat list of the decoder: residual blocks until the first resampler, and so on.
  int64_t blocks = 0, levels = 1;
  const auto has = [&](int64_t i, const char* leaf) {
    return work.keys.tensors.count("decoder.upsamples." + std::to_string(i) + leaf) > 0;
  };
  while (has(blocks, ".residual.2.weight")) ++blocks;
  for (int64_t i = blocks; has(i, ".resample.1.weight"); i += blocks + 1) ++levels;
  LazyTensors tensors = take(work, wan_native_names(levels, blocks - 1));
  Json config = write_fields(wan_config_of(tensors, work.where));
  config["_class_name"] = "AutoencoderKLWan";
  work.result.notes.push_back("latents_mean and latents_std are those of Wan 2.1's VAE");
  add_component(work, "vae", std::move(config), std::move(tensors));
  drop_rest(work, tokenizer_superfluous);
}

// Statistics of mean_std.pt: one value per channel, or per channel and latent frame.
std::vector<double> take_values(Work& work, const std::string& name, int64_t channels) {
  const auto found = work.keys.tensors.find(name);
  require(found->second.numel() % channels == 0 && found->second.numel() <= 1 << 20, work.where,
          ": ", name, ": ", found->second.numel(), " values for ", channels, " latent channels");
  const Tensor values = found->second.read().to(torch::kFloat64).flatten().contiguous();
  work.keys.tensors.erase(found);
  return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
}

// latents_mean and latents_std of mean_std.pt, where it lies beside the tokenizer.
void take_statistics(Work& work, LatentStats& stats, int64_t channels) {
  if (!work.keys.tensors.count("mean_std.0") || !work.keys.tensors.count("mean_std.1")) return;
  stats.mean = take_values(work, "mean_std.0", channels);
  stats.std = take_values(work, "mean_std.1", channels);
  work.result.created.push_back(
      {"vae/config.json: latents_mean, latents_std", "values of mean_std.pt"});
}

void import_video_tokenizer(Work& work) {
  work.result.family = "Cosmos tokenizer of video";
  const int64_t levels =
      count_levels(work.keys.tensors, "decoder.up.", ".block.0.conv1.0.conv3d.weight");
  const std::vector<int64_t> codes = quantizer_levels(work.keys.tensors, work.where);
  LazyTensors tensors = take(work, cosmos_native_names(levels));
  CosmosVaeConfig c = cosmos_config_of(tensors, work.where);
  Json config;
  if (codes.empty()) {
    take_statistics(work, c.stats, c.latent_channels);
    config = write_fields(c);
    config["_class_name"] = "AutoencoderKLCosmos";
  } else {
    CosmosDiscreteConfig discrete;
    static_cast<CosmosVaeConfig&>(discrete) = c;
    discrete.encoder_channels = c.network_channels();
    discrete.levels = codes;
    config = write_fields(discrete);
    config["_class_name"] = "CosmosDiscreteVideoTokenizer";
  }
  add_component(work, "vae", std::move(config), std::move(tensors));
  drop_rest(work, tokenizer_superfluous);
}

void import_image_tokenizer(Work& work) {
  work.result.family = "Cosmos tokenizer of images";
  const int64_t levels = count_levels(work.keys.tensors, "decoder.up.", ".block.0.conv1.weight");
  const std::vector<int64_t> codes = quantizer_levels(work.keys.tensors, work.where);
  LazyTensors tensors = take(work, image_native_names(levels));
  ImageTokenizerConfig c = image_config_of(tensors, codes, work.where);
  if (codes.empty()) take_statistics(work, c.stats, c.latent_channels);
  Json config = write_fields(c);
  config["_class_name"] = codes.empty() ? "CosmosImageTokenizer" : "CosmosDiscreteImageTokenizer";
  add_component(work, "vae", std::move(config), std::move(tensors));
  drop_rest(work, tokenizer_superfluous);
}

void refuse(const Work& work) {
  const auto has = [&](const char* part) {
    return std::any_of(work.keys.tensors.begin(), work.keys.tensors.end(),
                       [part](const auto& entry) { return contains(entry.first, part); });
  };
  require(!has("lora_A"), work.where,
          ": holds LoRA factors inside the model; merge them where they were trained");
  fail(work.where, ": no model known here has these keys (first: ",
       work.keys.tensors.empty() ? "none" : printable(work.keys.tensors.begin()->first),
       "); known are Predict1, Predict2, Predict2.5, Transfer1, Transfer2.5, Wan's VAE and Cosmos ",
       "Tokenizer");
}

}  // namespace

WeightSource open_native(const fs::path& path) {
  const auto has = [&](const char* name) { return is_file(path / name); };
  std::vector<std::string> files;
  if (has("autoencoder.jit")) {
    files = {"autoencoder.jit"};
  } else if (has("encoder.jit") && has("decoder.jit")) {
    files = {"encoder.jit", "decoder.jit"};
  } else {
    return open_weights(path);
  }
  WeightSource whole{.format = "TorchScript archives"};
  for (const auto& file : files) {
    WeightSource part = read_pytorch_file(path / file);
    whole.tensors.merge(part.tensors);
    require(part.tensors.empty(), path.string(), ": ", file, " repeats ",
            part.tensors.empty() ? "" : printable(part.tensors.begin()->first));
  }
  if (has("mean_std.pt"))
    for (const auto& [name, tensor] : read_pytorch_file(path / "mean_std.pt").tensors)
      whole.tensors["mean_std." + name] = tensor;
  return whole;
}

NativeImport import_native(const WeightSource& source, const std::string& where,
                           const ImportOptions& options) {
  require(options.config.is_object(), where, ": config: expected an object");
  Work work{unwrap_keys(source, where, options.ema), where, options, {}};
  work.result.dropped = work.keys.dropped;
  const auto has = [&](const std::string& name) { return work.keys.tensors.count(name) > 0; };
  const std::string predict1 = "blocks.block0.blocks.0.block.attn.to_q.0.weight";
  if (has(kBase + predict1) && has(kBranch + predict1)) {
    import_distilled(work);
  } else if (has(kBase + predict1)) {  // Transfer1's base, for a program that holds both
    NativeKeys base = below(work.keys, kBase);
    drop_rest(work, dit_superfluous);
    work.keys = std::move(base);
    import_dit(work, DitGeneration::kPredict1);
  } else if (has(predict1) && has("zero_blocks.block0.weight")) {
    import_transfer1(work);
  } else if (has(predict1)) {
    import_dit(work, DitGeneration::kPredict1);
  } else if (has("blocks.0.self_attn.q_proj.weight")) {
    import_dit(work, DitGeneration::kPredict2);
  } else if (has("decoder.upsamples.0.residual.2.weight")) {
    import_wan(work);
  } else if (has("encoder.down.0.block.0.conv1.0.conv3d.weight")) {
    import_video_tokenizer(work);
  } else if (has("encoder.down.0.block.0.conv1.weight")) {
    import_image_tokenizer(work);
  } else {
    refuse(work);
  }
  return std::move(work.result);
}

void cast_component(NativeComponent& component, torch::Dtype dtype) {
  const auto model = empty_model(component, component.name);
  for (const auto& place : base_tensors(*model))
    for (const auto& key : place.keys) {
      const auto found = component.tensors.find(key);
      if (found == component.tensors.end() || !c10::isFloatingType(found->second.dtype)) continue;
      const torch::Dtype to = model->keeps_float32(place.names.front()) ? torch::kFloat32 : dtype;
      found->second.dtype = to;
      found->second.read = [read = found->second.read, to] { return read().to(to); };
    }
}

std::string report_of(const NativeImport& import) {
  std::ostringstream out;
  for (const auto& component : import.components)
    out << component.name << ": " << component.tensors.size() << " weights renamed\n";
  for (const auto& note : import.notes) out << "assumed: " << note << "\n";
  for (const auto& note : import.created)
    out << "created: " << note.key << ": " << note.reason << "\n";
  for (const auto& note : import.dropped)
    out << "dropped: " << note.key << ": " << note.reason << "\n";
  return out.str();
}

}  // namespace cosmos::modules
