#include "modules/native/export.h"

#include <sstream>

#include "modules/diffusion/scheduler_config.h"
#include "modules/dit/multiview_transformer.h"
#include "modules/dit/native_names.h"
#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "modules/hub/pipeline_folder.h"
#include "modules/tokenizer/native_names.h"
#include "modules/transfer/native_names.h"

namespace cosmos::modules {
namespace {

namespace fs = std::filesystem;

std::string class_in(const Json& config) {
  return config.is_object() && config.contains("_class_name") && config["_class_name"].is_string()
             ? config["_class_name"].get<std::string>()
             : "";
}

void rename_all(NativeExport& result, const LazyTensors& tensors, const NameMap& map,
                const std::string& prefix, const std::string& where) {
  for (const auto& [name, tensor] : tensors) {
    const auto native = map.to_native(name);
    require(native.has_value(), where, ": ", printable(name), " has no name in NVIDIA's files");
    result.tensors[prefix + *native] = tensor;
  }
}

void export_dit(NativeExport& result, const Json& json, const LazyTensors& tensors,
                const std::string& where) {
  const DitConfig config = DitConfig::from_json(json, where);
  const bool first = config.has_learnable_positions();
  rename_all(result, tensors,
             dit_native_names(first ? DitGeneration::kPredict1 : DitGeneration::kPredict2), "net.",
             where);
  if (first) return;  // Predict1's loader computes them
  const bool views = json["_class_name"] == "CosmosMultiViewTransformer3DModel";
  const int64_t cameras = views ? MultiViewConfig::from_json(json, where).n_cameras_emb : 0;
  for (const auto& [name, tensor] : lazy_tensors(dit_native_buffers(config, cameras))) {
    result.tensors["net." + name] = tensor;
    result.created.push_back(
        {"net." + name, "buffer of the rotary embedding that loaders look for"});
  }
}

// Transfer1 keeps bases and branches in files of their own; only its distilled network, which its
// scheduler tells, is both in one.
void export_transfer1(NativeExport& result, const fs::path& dir) {
  const fs::path scheduler = dir / "scheduler" / "scheduler_config.json";
  require(is_file(scheduler) && is_one_step(read_json(scheduler)), dir.string(),
          ": NVIDIA's files hold Transfer1's base or one branch; give the component's folder");
  const std::string where = dir.string();
  rename_all(result, open_weights(dir / "transformer").tensors,
             dit_native_names(DitGeneration::kPredict1), "net.base_model.net.", where);
  rename_all(result, open_weights(dir / "controlnet").tensors, transfer1_native_names(),
             "net.net_ctrl.", where);
}

void export_control(NativeExport& result, const fs::path& dir, const LazyTensors& base) {
  LazyTensors control = open_weights(dir).tensors;
  for (auto entry = control.begin(); entry != control.end();) {
    const std::string original = control_copy_of(entry->first);
    if (original.empty()) {
      ++entry;
      continue;
    }
    const auto found = base.find(original);
    require(found != base.end() && found->second.shape == entry->second.shape &&
                torch::equal(found->second.read(), entry->second.read()),
            dir.string(), ": ", entry->first, " differs from the base's ", original,
            "; NVIDIA's file has one tensor for both");
    result.dropped.push_back({"controlnet/" + entry->first, "copy of the base's " + original});
    entry = control.erase(entry);
  }
  rename_all(result, control, control_native_names(), "net.", dir.string());
}

int64_t integer(const Json& config, const char* key, const std::string& where) {
  require(config.contains(key) && config[key].is_number_integer(), where, ": ", key, " is missing");
  return config[key].get<int64_t>();
}

// A discrete tokenizer's files keep its levels among the weights.
void add_levels(NativeExport& result, const Json& config) {
  if (!config.contains("levels") || !config["levels"].is_array() || config["levels"].empty())
    return;
  const auto levels = config["levels"].get<std::vector<int64_t>>();
  result.tensors.merge(lazy_tensors({{"quantizer._levels", torch::tensor(levels, torch::kInt32)}}));
  result.created.push_back({"quantizer._levels", "levels of config.json"});
}

void export_component(NativeExport& result, const fs::path& dir) {
  const std::string where = (dir / "config.json").string();
  const Json config = read_json(dir / "config.json");
  const std::string name = class_in(config);
  const LazyTensors tensors = open_weights(dir).tensors;
  const auto list_size = [&](const char* key) {
    require(config.contains(key) && config[key].is_array(), where, ": ", key, " is missing");
    return static_cast<int64_t>(config[key].size());
  };
  if (name == "CosmosTransformer3DModel" || name == "CosmosActionTransformer3DModel" ||
      name == "CosmosMultiViewTransformer3DModel") {
    export_dit(result, config, tensors, where);
  } else if (name == "CosmosTransfer1ControlNetModel") {
    rename_all(result, tensors, transfer1_native_names(), "net.", where);
  } else if (name == "AutoencoderKLWan") {
    rename_all(result, tensors,
               wan_native_names(list_size("dim_mult"), integer(config, "num_res_blocks", where)),
               "", where);
  } else if (name == "AutoencoderKLCosmos" || name == "CosmosDiscreteVideoTokenizer") {
    rename_all(result, tensors, cosmos_native_names(list_size("decode_block_out_channels") - 1), "",
               where);
    add_levels(result, config);
  } else if (name == "CosmosImageTokenizer" || name == "CosmosDiscreteImageTokenizer") {
    rename_all(result, tensors, image_native_names(list_size("channel_multipliers")), "", where);
    add_levels(result, config);
  } else {
    fail(where, ": ", name.empty() ? "names no class" : printable(name),
         name == "CosmosControlNetModel"
             ? " goes into one file with its base; give the pipeline folder"
             : " has no form in NVIDIA's files");
  }
}

}  // namespace

NativeExport export_native(const fs::path& dir) {
  NativeExport result;
  if (!is_pipeline_folder(dir)) {
    export_component(result, dir);
    return result;
  }
  const PipelineIndex index = read_pipeline_index(dir);
  require(index.components.count("transformer") > 0, dir.string(), ": has no transformer");
  const auto control = index.components.find("controlnet");
  if (index.class_name == "CosmosTransfer1Pipeline") {
    export_transfer1(result, dir);
    return result;
  }
  export_component(result, dir / "transformer");
  if (control != index.components.end() && !control->second.class_name.empty())
    export_control(result, dir / "controlnet", open_weights(dir / "transformer").tensors);
  return result;
}

std::string report_of(const NativeExport& exported) {
  std::ostringstream out;
  out << exported.tensors.size() << " tensors, of which " << exported.created.size()
      << " created\n";
  for (const auto& note : exported.created)
    out << "created: " << note.key << ": " << note.reason << "\n";
  for (const auto& note : exported.dropped)
    out << "dropped: " << note.key << ": " << note.reason << "\n";
  return out.str();
}

}  // namespace cosmos::modules
