#include "trainer/data/control_video.h"

#include <algorithm>

#include "modules/core/fields.h"
#include "modules/transfer/signals.h"

namespace cosmos::trainer {

bool is_computed_control(const std::string& control) {
  return control == "edge" || control == "blur" || control == "vis";
}

std::vector<std::string> control_names(const std::string& controls) {
  std::vector<std::string> names;
  for (std::size_t begin = 0; begin < controls.size();) {
    const std::size_t end = std::min(controls.find(',', begin), controls.size());
    names.push_back(controls.substr(begin, end - begin));
    begin = end + 1;
  }
  return names;
}

void validate_control(const std::string& controls, const std::string& strength,
                      const std::string& where) {
  const auto names = control_names(controls);
  for (const std::string& name : names)
    require(!name.empty() && name.find_first_of("/\\ ") == std::string::npos && name != ".." &&
                std::count(names.begin(), names.end(), name) == 1,
            modules::join_path(where, "control"),
            ": expected edge, blur or the name of a folder beside videos/, or several of these "
            "with commas between, got \"",
            controls, "\"");
  if (strength != "random")
    modules::strength_from(strength, modules::join_path(where, "control_strength"));
}

Tensor computed_control(const std::string& control, const std::string& strength,
                        const Tensor& frames, modules::Philox& random) {
  const bool drawn = strength == "random";
  if (control == "edge") {
    modules::EdgeThresholds thresholds;
    if (drawn) {
      thresholds.low = 20 + static_cast<int64_t>(random.below(80));
      thresholds.high = thresholds.low + 50 + static_cast<int64_t>(random.below(100));
    } else {
      thresholds = edge_thresholds(modules::strength_from(strength, "control_strength"));
    }
    return canny_edges(frames, thresholds);
  }
  auto options = blur_options(drawn ? static_cast<modules::Strength>(random.below(5))
                                    : modules::strength_from(strength, "control_strength"));
  if (drawn) options.bilateral = random.below(2) == 0;
  return blur(frames, options);
}

ControlFile open_control(const std::filesystem::path& path, const std::string& control,
                         const std::string& clip, double fps, int64_t frames) {
  require(std::filesystem::exists(path), path.string(), ": ", clip, " has no ", control,
          " video (control)");
  ControlFile file{.path = path, .info = probe_video(path)};
  const auto length = static_cast<int64_t>(timeline(file.info, fps).size());
  require(length >= frames, path.string(), ": too short: ", length, " frames, ", clip,
          " is used up to ", frames);
  return file;
}

}  // namespace cosmos::trainer
