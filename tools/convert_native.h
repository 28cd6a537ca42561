#pragma once

// The two commands of cosmos-convert that deal with NVIDIA's own files: import and native.

#include <filesystem>
#include <functional>
#include <iostream>
#include <optional>
#include <string>
#include <unistd.h>

#include "modules/hub/atomic_file.h"
#include "modules/hub/export_folder.h"
#include "modules/hub/json_file.h"
#include "modules/hub/pytorch_file.h"
#include "modules/hub/weight_folder.h"
#include "modules/native/export.h"
#include "modules/native/pipeline.h"

namespace cosmos::tools {

struct NativeArguments {
  std::string model, output, vae, text_encoder, tokenizer;
  std::optional<torch::Dtype> dtype = std::nullopt;
  int64_t max_shard_bytes = 0;
  modules::ImportOptions import = {};
  bool pipeline = false, overwrite = false;
};

/// Shows how far the writing is, on a terminal only.
class WriteProgress {
 public:
  /// `tensors`, each of which says so when it is read.
  modules::LazyTensors watch(const modules::LazyTensors& tensors) {
    done_ = total_ = 0;
    for (const auto& [name, tensor] : tensors) total_ += tensor.bytes();
    modules::LazyTensors watched = tensors;
    for (auto& [name, tensor] : watched)
      tensor.read = [this, read = tensor.read, bytes = tensor.bytes()] {
        show(bytes);
        return read();
      };
    return watched;
  }
  int64_t total_bytes() const { return total_; }
  ~WriteProgress() { clear(); }

 private:
  void show(int64_t bytes) {
    if (!terminal_) return;
    std::cerr << "\r" << (total_ > 0 ? 100 * done_ / total_ : 100) << " % of " << total_ / 1000000
              << " MB" << std::flush;
    done_ += bytes;
    if (done_ >= total_) clear();
  }
  void clear() const {
    if (terminal_) std::cerr << "\r\033[K" << std::flush;
  }

  const bool terminal_ = ::isatty(2) == 1;
  int64_t done_ = 0, total_ = 0;
};

inline void write_component(const std::filesystem::path& dir, modules::NativeComponent component,
                            const NativeArguments& arguments) {
  if (arguments.dtype) modules::cast_component(component, *arguments.dtype);
  std::filesystem::create_directories(dir);
  WriteProgress progress;
  modules::save_weights(dir, modules::kDiffusersWeights, progress.watch(component.tensors),
                        arguments.max_shard_bytes);
  modules::write_json(dir / "config.json", component.config);
  std::cout << component.name << ": " << component.config["_class_name"].get<std::string>() << ", "
            << component.tensors.size() << " weights, " << progress.total_bytes() / 1000000
            << " MB\n";
}

/// A component that is a Hugging Face folder already, file by file.
inline void copy_component(const std::filesystem::path& from, const std::filesystem::path& to) {
  require(std::filesystem::is_directory(from), from.string(), ": no such folder");
  std::filesystem::copy(from, to, std::filesystem::copy_options::recursive);
}

/// The VAE of a pipeline: a diffusers folder as it is, any native file through import.
inline std::string add_vae(const std::filesystem::path& out, const NativeArguments& arguments,
                           std::string& report) {
  if (std::filesystem::is_regular_file(std::filesystem::path(arguments.vae) / "config.json")) {
    copy_component(arguments.vae, out / "vae");
    return modules::read_json(out / "vae" / "config.json").value("_class_name", "");
  }
  modules::NativeImport vae =
      modules::import_native(modules::open_native(arguments.vae), arguments.vae);
  require(vae.components.size() == 1 && vae.components[0].name == "vae", arguments.vae,
          ": holds a ", vae.family, ", expected a VAE");
  report += modules::report_of(vae);
  write_component(out / "vae", vae.components[0], arguments);
  return vae.components[0].config["_class_name"].get<std::string>();
}

inline void write_pipeline(const std::filesystem::path& out, const modules::NativeImport& import,
                           const NativeArguments& arguments, std::string& report) {
  const modules::PipelineKind kind = modules::pipeline_of(import);
  modules::PipelineIndex index{.class_name = kind.class_name};
  for (const auto& component : import.components) {
    write_component(out / component.name, component, arguments);
    index.components[component.name] = {"diffusers", component.config["_class_name"]};
  }
  modules::write_json(out / "scheduler" / "scheduler_config.json", kind.scheduler);
  index.components["scheduler"] = {"diffusers", kind.scheduler["_class_name"]};
  index.components["safety_checker"] = {};
  index.components["vae"] = {};
  if (!arguments.vae.empty())
    index.components["vae"] = {"diffusers", add_vae(out, arguments, report)};
  for (const auto& [name, from] :
       {std::pair<const char*, const std::string&>("text_encoder", arguments.text_encoder),
        {"tokenizer", arguments.tokenizer}}) {
    index.components[name] = {};
    if (from.empty()) {
      report += std::string("left out: ") + name + ": not given\n";
      continue;
    }
    copy_component(from, out / name);
    index.components[name] = {"transformers", modules::transformers_class(from)};
  }
  modules::write_pipeline_index(out, index);
}

/// NVIDIA's file -> component or pipeline folder.
inline void import_command(const NativeArguments& arguments) {
  const modules::WeightSource source = modules::open_native(arguments.model);
  const modules::NativeImport import =
      modules::import_native(source, arguments.model, arguments.import);
  std::cout << arguments.model << ": " << source.format << ", " << source.tensors.size()
            << " tensors, a " << import.family << "\n";
  modules::ExportFolder out(arguments.output, arguments.overwrite);
  std::string report = modules::report_of(import);
  if (arguments.pipeline || import.components.size() > 1) {
    write_pipeline(out.path(), import, arguments, report);
  } else {
    write_component(out.path(), import.components[0], arguments);
  }
  modules::write_file(out.path() / "conversion.txt", report);
  out.commit();
  for (const auto& note : import.notes) std::cout << "note: " << note << "\n";
  std::cout << import.dropped.size() << " keys dropped, " << import.created.size()
            << " created; each with its reason in conversion.txt\nwrote " << arguments.output
            << "\n";
}

/// Component or pipeline folder -> NVIDIA's file.
inline void native_command(const NativeArguments& arguments) {
  const std::filesystem::path out = arguments.output;
  const std::string ending = out.extension().string();
  require(ending == ".pt" || ending == ".pth" || ending == ".safetensors", arguments.output,
          ": expected a file name ending in .pt, .pth or .safetensors");
  require(arguments.overwrite || !std::filesystem::exists(out), arguments.output,
          ": exists already; choose another name or pass --overwrite");
  const modules::NativeExport exported = modules::export_native(arguments.model);
  WriteProgress progress;
  const modules::LazyTensors tensors = progress.watch(exported.tensors);
  if (ending == ".safetensors") {
    modules::save_safetensors(out, tensors);
  } else {
    modules::save_pytorch_file(out, tensors);
  }
  std::cout << modules::report_of(exported) << "wrote " << arguments.output << "\n";
}

}  // namespace cosmos::tools
