#include "modules/pipeline/family.h"

#include <vector>

#include "modules/core/fields.h"

namespace cosmos::modules {
namespace {

constexpr WorldFamily kPredict1{.class_name = "CosmosTextToWorldPipeline",
                                .formulation = Formulation::kEdm,
                                .takes_frames = false,
                                .needs_frames = false,
                                .takes_control = false,
                                .picture = false,
                                .height = 704,
                                .width = 1280,
                                .frames = 121,
                                .steps = 36,
                                .fps = 30,
                                .guidance = 7,
                                .condition_time = -1,
                                .normalizes_weights = false,
                                .passes_fps = true};

std::vector<WorldFamily> families() {
  WorldFamily predict1_video = kPredict1;
  predict1_video.class_name = "CosmosVideoToWorldPipeline";
  predict1_video.takes_frames = predict1_video.needs_frames = true;

  WorldFamily transfer1 = predict1_video;  // not in diffusers; the name is ours
  transfer1.class_name = "CosmosTransfer1Pipeline";
  transfer1.needs_frames = false;
  transfer1.takes_control = transfer1.normalizes_weights = true;
  transfer1.guidance = 5;
  transfer1.steps = 35;
  transfer1.fps = 24;

  WorldFamily predict2_video = predict1_video;
  predict2_video.class_name = "Cosmos2VideoToWorldPipeline";
  predict2_video.formulation = Formulation::kPredict2;
  predict2_video.frames = 93;
  predict2_video.steps = 35;
  predict2_video.fps = 16;
  predict2_video.condition_time = 0.0001 / 1.0001;  // level 0.0001 as the network's time

  WorldFamily predict2_image = predict2_video;
  predict2_image.class_name = "Cosmos2TextToImagePipeline";
  predict2_image.takes_frames = predict2_image.needs_frames = false;
  predict2_image.picture = true;
  predict2_image.height = 768;
  predict2_image.width = 1360;
  predict2_image.frames = 1;
  predict2_image.passes_fps = false;

  WorldFamily predict25 = predict2_video;
  predict25.class_name = "Cosmos2_5_PredictBasePipeline";
  predict25.formulation = Formulation::kRectifiedFlow;
  predict25.needs_frames = false;
  predict25.steps = 36;
  predict25.condition_time = 0.0001;
  predict25.passes_fps = false;

  WorldFamily transfer25 = predict25;
  transfer25.class_name = "Cosmos2_5_TransferPipeline";
  transfer25.takes_control = true;
  transfer25.guidance = 3;
  transfer25.condition_time = 0.1;
  return {kPredict1,      predict1_video, transfer1, predict2_image,
          predict2_video, predict25,      transfer25};
}

}  // namespace

WorldFamily world_family(const std::string& class_name, const std::string& where) {
  std::vector<std::string> names;
  for (const WorldFamily& family : families()) {
    if (family.class_name == class_name) return family;
    names.emplace_back(family.class_name);
  }
  const std::string near = nearest(class_name, names);
  std::string all;
  for (const auto& name : names) all += (all.empty() ? "" : ", ") + name;
  fail(where, ": no pipeline of ours is called ", class_name,
       near.empty() ? " (known: " + all + ")" : " (did you mean " + near + "?)");
}

WorldFamily nvidia_settings(WorldFamily family) {
  if (family.formulation == Formulation::kEdm) family.fps = 24;
  if (family.formulation == Formulation::kPredict2) family.passes_fps = false;
  if (family.takes_control) family.condition_time = -1;
  return family;
}

}  // namespace cosmos::modules
