#pragma once

// What a robot arm does during a clip, as Cosmos Predict2 and 2.5 are told it (Bridge's annotation
// files, NVIDIA's formulas):
//
//   {"state": [[x, y, z, roll, pitch, yaw], ...],  "continuous_gripper_state": [g, ...],
//    "videos": [{"video_path": "videos/7.mp4"}], "texts": ["put the spoon on the towel"]}
//
// The action from frame i to frame j is the pose of j seen from the gripper at i, times `scale`,
// and the gripper of j, times `gripper_scale`:
//
//   R = Rz(yaw) Ry(pitch) Rx(roll)
//   action = (scale R_i^T (p_j - p_i),  scale angles(R_i^T R_j),  gripper_scale g_j)
//
// The files' own `action` is not read: it counts another way. Robots that move otherwise (two arms,
// a base) bring the numbers as they are: {"actions": [[...], ...]}, one row a frame but the last.

#include <filesystem>
#include <string>
#include <vector>

#include "modules/core/model.h"

namespace cosmos::trainer {

struct ActionScale {
  double pose = 20, gripper = 1;
};

class RobotActions {
 public:
  /// Throws Error naming the file and what is wrong in it.
  static RobotActions read(const std::filesystem::path& path, const ActionScale& scale = {});
  /// The same of a parsed file; `where` names it.
  static RobotActions parse(const Json& json, const std::string& where,
                            const ActionScale& scale = {});

  /// Frames that the actions lead from and to.
  int64_t frames() const;
  /// Numbers of an action.
  int64_t width() const { return states_.defined() ? 7 : actions_.size(1); }
  /// From each of these frames to the next: [frames - 1, width()]. Throws Error on a frame beyond
  /// the last, and where ready-made actions are asked to skip frames.
  Tensor between(const std::vector<int64_t>& frames) const;
  /// From every frame to the next.
  Tensor all() const;

 private:
  std::string where_;
  ActionScale scale_;
  Tensor states_;   ///< float64 [n, 7]: pose and gripper
  Tensor actions_;  ///< float64 [n - 1, width]
};

}  // namespace cosmos::trainer
