#pragma once

// model_index.json: which component folders a diffusers pipeline consists of.

#include <filesystem>
#include <map>
#include <string>

#include "modules/hub/json_file.h"

namespace cosmos::modules {

struct PipelineComponent {
  std::string library;     ///< "diffusers", "transformers"; "" when the pipeline goes without it
  std::string class_name;  ///< "CosmosTransformer3DModel"; "" as above
};

struct PipelineIndex {
  std::string class_name;                                    ///< "Cosmos2_5_PredictBasePipeline"
  std::map<std::string, PipelineComponent> components = {};  ///< by folder name
  Json extra = Json::object();                               ///< every other key, kept
};

/// Whether `dir` holds a model_index.json.
bool is_pipeline_folder(const std::filesystem::path& dir);

/// Throws Error when the file is missing or malformed, or a component's folder is not there.
PipelineIndex read_pipeline_index(const std::filesystem::path& dir);

void write_pipeline_index(const std::filesystem::path& dir, const PipelineIndex& index);

}  // namespace cosmos::modules
