#include "trainer/data/robot_actions.h"

#include <cmath>
#include <numeric>

#include "modules/core/fields.h"
#include "modules/hub/json_file.h"

namespace cosmos::trainer {
namespace {

// Rows of `columns` numbers or more (the rest is left), or single numbers as rows of one.
Tensor table(const Json& json, const std::string& where, int64_t columns, bool exactly) {
  require(json.is_array() && !json.empty(), where, ": expected rows of numbers, got ",
          modules::describe(json));
  std::vector<double> numbers;
  for (std::size_t i = 0; i < json.size(); ++i) {
    const Json row = json[i].is_array() ? json[i] : Json::array({json[i]});
    const auto size = static_cast<int64_t>(row.size());
    require(exactly ? size == columns : size >= columns, where, "[", i, "]: expected ", columns,
            " numbers, got ", size);
    for (int64_t k = 0; k < columns; ++k) {
      const Json& number = row[static_cast<std::size_t>(k)];
      require(number.is_number() && std::isfinite(number.get<double>()), where, "[", i,
              "]: expected numbers, got ", modules::describe(number));
      numbers.push_back(number.get<double>());
    }
  }
  return torch::tensor(numbers, torch::kFloat64).view({-1, columns});
}

// Rz(yaw) Ry(pitch) Rx(roll).  [n, 3] -> [n, 3, 3]
Tensor rotations(const Tensor& angles) {
  const Tensor c = angles.cos(), s = angles.sin();
  const auto cos = [&](int64_t k) { return c.select(1, k); };
  const auto sin = [&](int64_t k) { return s.select(1, k); };
  const Tensor one = torch::ones_like(cos(0)), zero = torch::zeros_like(cos(0));
  const auto matrix = [](const Tensors& entries) {
    return torch::stack(entries, 1).view({-1, 3, 3});
  };
  const Tensor x = matrix({one, zero, zero, zero, cos(0), -sin(0), zero, sin(0), cos(0)});
  const Tensor y = matrix({cos(1), zero, sin(1), zero, one, zero, -sin(1), zero, cos(1)});
  const Tensor z = matrix({cos(2), -sin(2), zero, sin(2), cos(2), zero, zero, zero, one});
  return z.matmul(y).matmul(x);
}

// The inverse; where pitch is a right angle, with yaw 0.  [n, 3, 3] -> [n, 3]
Tensor angles_of(const Tensor& rotation) {
  const auto at = [&](int64_t i, int64_t j) { return rotation.select(1, i).select(1, j); };
  const Tensor across = (at(0, 0).square() + at(1, 0).square()).sqrt();
  const Tensor upright = across < 1e-6;
  const Tensor roll =
      torch::where(upright, torch::atan2(-at(1, 2), at(1, 1)), torch::atan2(at(2, 1), at(2, 2)));
  const Tensor pitch = torch::atan2(-at(2, 0), across);
  const Tensor yaw =
      torch::where(upright, torch::zeros_like(across), torch::atan2(at(1, 0), at(0, 0)));
  return torch::stack({roll, pitch, yaw}, 1);
}

}  // namespace

RobotActions RobotActions::read(const std::filesystem::path& path, const ActionScale& scale) {
  return parse(modules::read_json(path), path.string(), scale);
}

RobotActions RobotActions::parse(const Json& json, const std::string& where,
                                 const ActionScale& scale) {
  require(json.is_object() && (json.contains("state") || json.contains("actions")), where,
          ": expected an object with `state` and `continuous_gripper_state`, or with `actions`");
  RobotActions robot;
  robot.where_ = where;
  robot.scale_ = scale;
  if (!json.contains("state")) {
    const Json& rows = json["actions"];
    const bool wide = rows.is_array() && !rows.empty() && rows[0].is_array();
    const auto width = wide ? static_cast<int64_t>(rows[0].size()) : 1;
    require(width > 0, where, ": actions[0]: expected numbers, got none");
    robot.actions_ = table(rows, where + ": actions", width, /*exactly=*/true);
    return robot;
  }
  require(json.contains("continuous_gripper_state"), where,
          ": has `state`, but no `continuous_gripper_state`");
  const Tensor pose = table(json["state"], where + ": state", 6, /*exactly=*/false);
  const Tensor gripper = table(json["continuous_gripper_state"],
                               where + ": continuous_gripper_state", 1, /*exactly=*/true);
  require(pose.size(0) == gripper.size(0), where, ": ", pose.size(0), " states, but ",
          gripper.size(0), " gripper states");
  robot.states_ = torch::cat({pose, gripper}, 1);
  return robot;
}

int64_t RobotActions::frames() const {
  return states_.defined() ? states_.size(0) : actions_.size(0) + 1;
}

Tensor RobotActions::between(const std::vector<int64_t>& frames) const {
  require(frames.size() >= 2, where_, ": actions lead from one frame to another, got ",
          frames.size(), " frames");
  for (std::size_t i = 0; i < frames.size(); ++i) {
    require(frames[i] >= 0 && frames[i] < this->frames(), where_, ": frame ", frames[i],
            " is needed, the file knows ", this->frames());
    require(states_.defined() || i == 0 || frames[i] == frames[i - 1] + 1, where_,
            ": actions of every frame cannot skip frames; bring `state`, or take every frame (fps "
            "0)");
  }
  if (!states_.defined())
    return actions_.narrow(0, frames[0], static_cast<int64_t>(frames.size()) - 1)
        .to(torch::kFloat32);
  const Tensor states = states_.index_select(0, torch::tensor(frames));
  const Tensor from = states.slice(0, 0, -1), to = states.slice(0, 1);
  const Tensor turn = rotations(from.slice(1, 3, 6)).transpose(1, 2);
  const Tensor moved = turn.matmul((to - from).slice(1, 0, 3).unsqueeze(2)).squeeze(2);
  const Tensor turned = angles_of(turn.matmul(rotations(to.slice(1, 3, 6))));
  return torch::cat({moved * scale_.pose, turned * scale_.pose, to.slice(1, 6) * scale_.gripper}, 1)
      .to(torch::kFloat32);
}

Tensor RobotActions::all() const {
  std::vector<int64_t> every(static_cast<std::size_t>(frames()));
  std::iota(every.begin(), every.end(), 0);
  return between(every);
}

}  // namespace cosmos::trainer
