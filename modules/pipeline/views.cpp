#include "modules/pipeline/views.h"

#include <algorithm>

namespace cosmos::modules {

const std::vector<std::string>& camera_names() {
  static const std::vector<std::string> kNames = {"front_wide", "cross_right", "rear_right", "rear",
                                                  "rear_left",  "cross_left",  "front_tele"};
  return kNames;
}

int64_t camera_index(const std::string& name, const std::string& where) {
  const auto& names = camera_names();
  if (const auto found = std::find(names.begin(), names.end(), name); found != names.end())
    return found - names.begin();
  const bool number =
      !name.empty() && name.size() <= 3 &&
      std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (number) return std::stoll(name);
  const std::string near = nearest(name, names);
  fail(where, ": ", name, " is no camera",
       near.empty() ? " (front_wide, cross_right, rear_right, rear, rear_left, cross_left, "
                      "front_tele, or a number)"
                    : " (did you mean " + near + "?)");
}

std::string camera_name(int64_t index) {
  const auto& names = camera_names();
  return index >= 0 && index < static_cast<int64_t>(names.size())
             ? names[static_cast<std::size_t>(index)]
             : std::to_string(index);
}

const CosmosMultiViewTransformer3DModel* multi_view(const CosmosTransformer3DModel& transformer) {
  return dynamic_cast<const CosmosMultiViewTransformer3DModel*>(&transformer);
}

WorldFamily multi_view_settings(WorldFamily family, int64_t frames) {
  family.frames = frames;
  family.steps = 35;
  family.needs_frames = false;
  if (family.formulation == Formulation::kRectifiedFlow) {
    family.fps = 30;
    family.guidance = 2;
    family.condition_time = -1;
  } else {
    family.fps = 10;
    family.passes_fps = true;
  }
  return family;
}

}  // namespace cosmos::modules
