#pragma once

// Runs of cosmos-curate on footage whose faults are known.

#include <array>
#include <filesystem>
#include <fstream>
#include <map>

#include "modules/hub/json_file.h"
#include "test/support/program.h"
#include "test/support/temp_folder.h"
#include "trainer/data/media_writer.h"

namespace cosmos::test {

/// A textured square of `colour` that wanders over a ground of the other colour, 10 frames a
/// second.
inline Tensor scene(int64_t frames, std::array<int, 3> ground, std::array<int, 3> square) {
  const auto colour = [](std::array<int, 3> c) {
    return torch::tensor({c[0], c[1], c[2]}, torch::kUInt8);
  };
  Tensor clip = colour(ground).view({1, 1, 1, 3}).repeat({frames, 64, 96, 1});
  for (int64_t t = 0; t < frames; ++t)
    clip[t].slice(0, 16, 40).slice(1, t, t + 24).copy_(colour(square).view({1, 1, 3}));
  return clip;
}

inline void write_footage(const std::filesystem::path& path, const Tensor& frames) {
  trainer::write_video(path, frames, {.fps = 10, .keyframe_interval = 10});
}

struct CurateRun {
  TempFolder folder;
  std::filesystem::path inputs = folder / "raw", output = folder / "set";

  CurateRun() { std::filesystem::create_directories(inputs); }
  std::filesystem::path config(const Json& more = Json::object()) {
    Json settings = {
        {"inputs", {inputs.string()}}, {"output", output.string()}, {"caption", "A square."}};
    settings.update(more);
    modules::write_json(folder / "curate.json", settings);
    return folder / "curate.json";
  }
  Json summary() const { return modules::read_json(output / "summary.json"); }
  /// Every published file by name, with its bytes: all but the state and the page, which names the
  /// output folder.
  std::map<std::string, std::string> set() const {
    std::map<std::string, std::string> files;
    for (const auto& file : std::filesystem::recursive_directory_iterator(output)) {
      const std::string name = std::filesystem::relative(file.path(), output).string();
      if (!file.is_regular_file() || name == "report.html" || name.rfind("curate.sqlite", 0) == 0)
        continue;
      std::ifstream in(file.path(), std::ios::binary);
      files[name] = {std::istreambuf_iterator<char>(in), {}};
    }
    return files;
  }
  /// Lines of clips.jsonl or dropped.jsonl.
  std::vector<Json> lines(const std::string& name) const {
    std::vector<Json> parsed;
    std::ifstream in(output / name);
    for (std::string line; std::getline(in, line);) parsed.push_back(Json::parse(line));
    return parsed;
  }
};

}  // namespace cosmos::test
