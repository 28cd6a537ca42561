#pragma once

// The diffusers pipeline that a native checkpoint belongs in.

#include <filesystem>
#include <string>

#include "modules/hub/pipeline_folder.h"
#include "modules/native/import.h"

namespace cosmos::modules {

/// Class of the pipeline and its scheduler's config, by generation and inputs of the transformer,
/// as diffusers' own conversion chooses them. Throws Error when `import` holds no transformer.
struct PipelineKind {
  std::string class_name;  ///< "Cosmos2VideoToWorldPipeline"
  Json scheduler;          ///< scheduler/scheduler_config.json
};
PipelineKind pipeline_of(const NativeImport& import);

/// Class of a transformers component: "T5EncoderModel" of a folder with config.json, the
/// tokenizer_class of one with tokenizer_config.json. Throws Error when it is neither.
std::string transformers_class(const std::filesystem::path& dir);

}  // namespace cosmos::modules
