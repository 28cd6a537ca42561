#pragma once

// --view and --view-prompt of cosmos-generate: the cameras of a multi-view clip, what each starts
// from and what is said of each; and the grid in which they are shown.

#include <algorithm>
#include <cmath>
#include <cxxopts.hpp>
#include <map>
#include <string>
#include <vector>

#include "modules/pipeline/views.h"
#include "tools/controls.h"
#include "tools/program.h"

namespace cosmos::tools {

struct ViewArgument {
  int64_t camera = 0;
  std::string file{};    ///< picture or video to start from; empty: none
  std::string prompt{};  ///< empty: nothing is said of this view
};

/// Stands among prompts for the view of which nothing is said. As in NVIDIA's code it becomes an
/// encoded space (Predict2.5) or zeros (Predict2).
inline constexpr const char* kBlankPrompt = "\x1f";

/// NAME[=TEXT] -> camera and text.
inline ViewArgument parse_view(const std::string& text, const char* option) {
  const auto equal = text.find('=');
  ViewArgument view;
  view.camera = modules::camera_index(text.substr(0, equal), option);
  if (equal != std::string::npos) view.file = text.substr(equal + 1);
  return view;
}

/// In the order of --view; empty without. --prompt is said of front_wide where it has no prompt of
/// its own, of the first view where there is no front_wide.
inline std::vector<ViewArgument> views_of(const cxxopts::ParseResult& args) {
  const auto list = [&](const char* name) {
    return args.count(name) ? args[name].as<std::vector<std::string>>()
                            : std::vector<std::string>{};
  };
  std::vector<ViewArgument> views;
  const auto of_camera = [&](int64_t camera) {
    return std::find_if(views.begin(), views.end(),
                        [camera](const ViewArgument& view) { return view.camera == camera; });
  };
  for (const std::string& text : list("view")) {
    const ViewArgument view = parse_view(text, "--view");
    require(of_camera(view.camera) == views.end(), "--view ", text, ": the camera is given twice");
    views.push_back(view);
  }
  for (const std::string& text : list("view-prompt")) {
    const ViewArgument said = parse_view(text, "--view-prompt");
    const auto view = of_camera(said.camera);
    require(view != views.end(), "--view-prompt ", text, ": there is no --view of that name");
    require(!said.file.empty() && view->prompt.empty(), "--view-prompt ", text,
            ": expected NAME=TEXT, once for each view");
    view->prompt = said.file;
  }
  if (views.empty() || !args.count("prompt")) return views;
  auto front = of_camera(0);
  if (front == views.end()) front = views.begin();
  if (front->prompt.empty()) front->prompt = args["prompt"].as<std::string>();
  return views;
}

/// The texts that a clip's embeddings are made of: one, or one a view. Nothing where no prompt is
/// given.
inline std::vector<std::string> prompts_of(const cxxopts::ParseResult& args) {
  std::vector<std::string> texts;
  bool any = false;
  for (const ViewArgument& view : views_of(args)) {
    any = any || !view.prompt.empty();
    texts.push_back(view.prompt.empty() ? kBlankPrompt : view.prompt);
  }
  if (!texts.empty()) return any ? texts : std::vector<std::string>{};
  if (args.count("prompt")) texts.push_back(args["prompt"].as<std::string>());
  return texts;
}

/// All that is said of a clip, a line a view.
inline std::string said_of(const cxxopts::ParseResult& args) {
  std::string said;
  for (const std::string& text : prompts_of(args))
    if (text != kBlankPrompt) said += (said.empty() ? "" : "\n") + text;
  return said;
}

/// The same of --negative-prompt, which stands against every view that has a prompt.
inline std::vector<std::string> negative_prompts_of(const cxxopts::ParseResult& args) {
  if (!args.count("negative-prompt")) return {};
  const std::string negative = args["negative-prompt"].as<std::string>();
  std::vector<std::string> texts = prompts_of(args);
  if (texts.empty()) texts.assign(std::max<std::size_t>(views_of(args).size(), 1), "");
  for (std::string& text : texts)
    if (text != kBlankPrompt) text = negative;
  return texts;
}

/// One control of all views from that of each, in the order of `views`: their frames, and masks
/// where there are any, beside each other.
inline modules::ControlSignal join_controls(const std::string& name,
                                            const std::map<int64_t, modules::ControlSignal>& given,
                                            const std::vector<ViewArgument>& views) {
  std::vector<modules::ControlSignal> parts;
  for (const ViewArgument& view : views) {
    const std::string camera = modules::camera_name(view.camera);
    const auto found = given.find(view.camera);
    require(found != given.end(), "--control ", name, ": expected ", name, "/", camera,
            "=FILE too, every view has its own");
    const modules::ControlSignal& first = parts.empty() ? found->second : parts.front();
    require(found->second.weight == first.weight &&
                static_cast<bool>(found->second.mask) == static_cast<bool>(first.mask),
            "--control ", name, "/", camera,
            ": expected the weight of the other views, and a mask ", "where they have one");
    parts.push_back(found->second);
  }
  require(given.size() == parts.size(), "--control ", name, ": names a camera that is no --view");
  modules::ControlSignal all{.weight = parts.front().weight};
  all.length = parts.front().length;
  for (const auto& part : parts) all.length = std::min(all.length, part.length);
  all.frames = [parts](int64_t first, int64_t count) {
    Tensors frames;
    for (const auto& part : parts) frames.push_back(part.frames(first, count));
    return torch::cat(frames);
  };
  if (parts.front().mask)
    all.mask = [parts](int64_t first, int64_t count) {
      Tensors masks;
      for (const auto& part : parts) masks.push_back(part.mask(first, count));
      return torch::cat(masks);
    };
  return all;
}

/// Views side by side in rows, in their order, black where there is none.
/// frames: [V n, H, W, 3], view by view -> [n, rows H, columns W, 3]
inline Tensor view_grid(const Tensor& frames, int64_t views) {
  const auto columns = static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(views))));
  const int64_t rows = (views + columns - 1) / columns;
  Tensor cells = frames.unflatten(0, {views, -1});
  if (const int64_t room = rows * columns - views; room > 0) {
    std::vector<int64_t> shape = cells.sizes().vec();
    shape[0] = room;
    cells = torch::cat({cells, torch::zeros(shape, cells.options())});
  }
  return cells
      .unflatten(0, {rows, columns})  // [rows, columns, n, H, W, 3]
      .permute({2, 0, 3, 1, 4, 5})
      .flatten(3, 4)
      .flatten(1, 2)
      .contiguous();
}

}  // namespace cosmos::tools
