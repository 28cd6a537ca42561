// cosmos-eval: how near generated clips are to their references, and whether a clip could show one
// rigid scene. Every number is computed on decoded frames.

#include <cmath>
#include <cxxopts.hpp>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <map>
#include <optional>

#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "modules/metrics/control.h"
#include "modules/metrics/frames.h"
#include "modules/metrics/sampson.h"
#include "tools/eval_sets.h"
#include "tools/program.h"
#include "trainer/data/video_reader.h"

namespace {

namespace fs = std::filesystem;
using namespace cosmos;
using namespace cosmos::modules;

constexpr const char* kHelp = R"(
Metrics (--metrics, comma separated; a number a frame, then their mean)
  psnr      dB, of RGB in [0, 1]
  ssim      structural similarity of RGB
  canny     F1 of Canny edges (100, 200): how well a clip follows its reference's edges
  blur      SSIM of both clips blurred as the control "blur" is (medium)
  depth     of depth videos (grey, larger is farther): scale-invariant RMSE of the logarithm
  iou       of segmentation videos (one flat colour a class): mean intersection over union
  sampson   of the clip alone: pixels by which points followed from each frame to the next miss the
            epipolar geometry of one rigid scene (RANSAC, seeded); a number a pair of frames
  lpips     distance to the reference in a network's features (--lpips-network)

Of all clips together against all references, whose names and sizes may differ:
  fid       Fréchet distance of the features of frames (--fid-network)
  fvd       the same of windows of --fvd-frames frames (--fvd-network)

Networks are TorchScript files, which are programs that run: name only what you trust. NVIDIA hands
out inception-2015-12-05.pt (FID), i3d_torchscript.pt (FVD) and vgg16.pt (LPIPS). They get values from
0 to 255, and return_features, return_lpips, rescale and resize where they know these.

--clip and --reference are files, or folders whose files have the same names. Clips of another
length or size than their reference are refused.

Example
  cosmos-eval --clip out.mp4 --reference truth.mp4 --metrics psnr,ssim --output scores.json

Exit codes: 0 done, 1 bad input (one line on stderr), 2 wrong usage.)";

struct Arguments {
  std::string clip, reference, output;
  std::vector<std::string> metrics;
  uint64_t seed = 0;
  std::optional<int64_t> reference_start;
  std::map<std::string, std::string> networks;  ///< of fid, fvd, lpips
  int64_t fvd_frames = 16;

  bool wants(const std::string& metric) const {
    return std::find(metrics.begin(), metrics.end(), metric) != metrics.end();
  }
  bool wants_pairs() const {
    return std::any_of(metrics.begin(), metrics.end(),
                       [](const auto& metric) { return metric != "fid" && metric != "fvd"; });
  }
};

constexpr int64_t kFramesAtOnce = 16;

/// Frames of a clip, a few at a time: [n, 3, H, W] in [0, 1].
class Frames {
 public:
  explicit Frames(const fs::path& path) : path_(path), info_(trainer::probe_video(path)) {
    frames_ = info_.frames();
    size_ = {.height = info_.height, .width = info_.width};
  }

  /// From now on the frames from `start` on, as many and as large as those of `clip`.
  void cut_like(const Frames& clip, int64_t start) {
    require(start >= 0 && start + clip.frames_ <= info_.frames(), path_.string(), ": frames ",
            start, " to ", start + clip.frames_ - 1, " are compared, it has ", info_.frames());
    start_ = start;
    frames_ = clip.frames_;
    size_ = clip.size_;
  }

  int64_t frames() const { return frames_; }
  const trainer::FrameSize& size() const { return size_; }
  Tensor read(int64_t first, int64_t count) const {
    const Tensor frames = trainer::read_video(
        path_, info_, {.first = start_ + first, .frames = count, .size = size_});
    return frames.permute({0, 3, 1, 2}).to(torch::kFloat32) / 255;
  }

 private:
  fs::path path_;
  trainer::VideoInfo info_;
  trainer::FrameSize size_;
  int64_t start_ = 0, frames_ = 0;
};

Tensor grey(const Tensor& frames) {
  return frames.mean(1);
}

using Metric = Tensor (*)(const Tensor& clip, const Tensor& reference);

const std::map<std::string, Metric>& paired_metrics() {
  static const std::map<std::string, Metric> table = {
      {"psnr", psnr},
      {"ssim", ssim},
      {"canny", [](const Tensor& a, const Tensor& b) { return canny_f1(a, b); }},
      {"blur", [](const Tensor& a, const Tensor& b) { return blur_ssim(a, b); }},
      {"depth",
       [](const Tensor& a, const Tensor& b) { return scale_invariant_rmse(grey(a), grey(b)); }},
      {"iou", [](const Tensor& a,
                 const Tensor& b) { return mean_iou(colour_labels(a), colour_labels(b)); }},
  };
  return table;
}

void add_values(Json& scores, const std::string& metric, const Tensor& values) {
  for (int64_t i = 0; i < values.size(0); ++i) {
    const double value = values[i].item<double>();
    // JSON has neither infinity (equal frames) nor NaN (nothing to judge).
    scores[metric]["frames"].push_back(std::isfinite(value) ? Json(value) : Json(nullptr));
  }
}

void add_means(Json& scores) {
  for (auto& [metric, entry] : scores.items()) {
    double sum = 0;
    int64_t count = 0;
    for (const auto& value : entry["frames"])
      if (value.is_number()) sum += value.get<double>(), ++count;
    entry["mean"] = count > 0 ? Json(sum / static_cast<double>(count)) : Json(nullptr);
    entry["frames_judged"] = count;
  }
}

Json score_pairs(const Frames& clip, const Frames& reference, const std::string& where,
                 const std::vector<std::string>& metrics, FeatureNetwork* lpips) {
  const auto &a = clip.size(), &b = reference.size();
  require(clip.frames() == reference.frames() && a.height == b.height && a.width == b.width, where,
          ": ", clip.frames(), " frames of ", a.height, " x ", a.width, ", its reference has ",
          reference.frames(), " of ", b.height, " x ", b.width,
          " (--reference-start N compares with a part of it, scaled)");
  Json scores = Json::object();
  for (int64_t first = 0; first < clip.frames(); first += kFramesAtOnce) {
    const int64_t count = std::min(kFramesAtOnce, clip.frames() - first);
    const Tensor x = clip.read(first, count), y = reference.read(first, count);
    for (const auto& metric : metrics) {
      const auto found = paired_metrics().find(metric);
      if (found != paired_metrics().end()) add_values(scores, metric, found->second(x, y));
    }
    if (lpips)
      add_values(scores, "lpips",
                 (lpips->lpips_features(x * 255) - lpips->lpips_features(y * 255)).square().sum(1));
  }
  return scores;
}

Json score_sampson(const Frames& clip, uint64_t seed) {
  Json scores = Json::object();
  scores["sampson"]["frames"] = Json::array();
  Tensor last;
  for (int64_t i = 0; i < clip.frames(); ++i) {
    const Tensor frame = grey(clip.read(i, 1))[0];
    if (last.defined()) {
      const double error = sampson_error(match_frames(last, frame), seed);
      add_values(scores, "sampson", torch::tensor({error}, torch::kFloat64));
    }
    last = frame;
  }
  return scores;
}

Json score(const fs::path& clip, const fs::path& reference, const Arguments& arguments,
           FeatureNetwork* lpips) {
  const Frames frames(clip);
  Json scores = Json::object();
  if (!reference.empty()) {
    Frames other(reference);
    if (arguments.reference_start) other.cut_like(frames, *arguments.reference_start);
    scores = score_pairs(frames, other, clip.string(), arguments.metrics, lpips);
  }
  if (arguments.wants("sampson")) scores.update(score_sampson(frames, arguments.seed));
  add_means(scores);
  return scores;
}

using Pairs = std::map<std::string, std::pair<fs::path, fs::path>>;

/// The clips to judge, by name, each with its reference or "".
Pairs pairs_of(const Arguments& arguments) {
  std::error_code error;
  if (!fs::is_directory(arguments.clip, error))
    return {{fs::path(arguments.clip).filename().string(), {arguments.clip, arguments.reference}}};
  Pairs pairs;
  for (const auto& entry : fs::directory_iterator(arguments.clip)) {
    if (!entry.is_regular_file(error)) continue;
    const fs::path name = entry.path().filename();
    fs::path reference;
    if (!arguments.reference.empty()) reference = fs::path(arguments.reference) / name;
    require(reference.empty() || fs::is_regular_file(reference, error), reference.string(),
            ": is missing; every clip needs a reference of its name");
    pairs[name.string()] = {entry.path(), reference};
  }
  require(!pairs.empty(), arguments.clip, ": holds no clips");
  return pairs;
}

cxxopts::Options make_options() {
  cxxopts::Options options("cosmos-eval", "Judges generated clips.");
  options.custom_help("--clip PATH [--reference PATH] [options]");
  const auto text = [](const char* otherwise) {
    return cxxopts::value<std::string>()->default_value(otherwise);
  };
  auto add = options.add_options();
  add("clip", "clip, or folder of clips, to judge", text(""), "PATH");
  add("reference", "what they are judged by", text(""), "PATH");
  add("reference-start",
      "compare with the reference's frames from this one on, scaled to the clip's size",
      cxxopts::value<int64_t>(), "N");
  add("metrics", "see below", cxxopts::value<std::vector<std::string>>(), "LIST");
  add("fid-network", "TorchScript file of pictures' features", text(""), "FILE");
  add("fvd-network", "TorchScript file of clips' features", text(""), "FILE");
  add("lpips-network", "TorchScript file of LPIPS features", text(""), "FILE");
  add("fvd-frames", "frames of a window of fvd", cxxopts::value<int64_t>()->default_value("16"),
      "N");
  add("seed", "of RANSAC", cxxopts::value<uint64_t>()->default_value("0"), "N");
  add("output", "JSON file with every frame's numbers", text(""), "FILE");
  add("h,help", "this text");
  return options;
}

Arguments parse(const cxxopts::ParseResult& parsed) {
  Arguments arguments{.clip = parsed["clip"].as<std::string>(),
                      .reference = parsed["reference"].as<std::string>(),
                      .output = parsed["output"].as<std::string>(),
                      .metrics = {"psnr", "ssim"},
                      .seed = parsed["seed"].as<uint64_t>()};
  if (parsed.count("reference-start"))
    arguments.reference_start = parsed["reference-start"].as<int64_t>();
  if (parsed.count("metrics")) arguments.metrics = parsed["metrics"].as<std::vector<std::string>>();
  require(parsed.unmatched().empty(), "unexpected argument ",
          parsed.unmatched().empty() ? "" : parsed.unmatched()[0]);
  require(!arguments.clip.empty(), "--clip is missing");
  arguments.fvd_frames = parsed["fvd-frames"].as<int64_t>();
  require(arguments.fvd_frames > 1, "--fvd-frames: expected 2 or more, got ", arguments.fvd_frames);
  for (const auto& metric : arguments.metrics) {
    const std::string option = metric + "-network";
    if (metric == "fid" || metric == "fvd" || metric == "lpips") {
      arguments.networks[metric] = parsed[option].as<std::string>();
      require(!arguments.networks[metric].empty(), "--", option, " is missing: ", metric,
              " judges by the features of a network");
      require(!arguments.reference.empty(), "--reference is missing: ", metric, " judges by one");
      continue;
    }
    const bool paired = paired_metrics().count(metric) > 0;
    require(paired || metric == "sampson", "--metrics: ", metric,
            " is not known (psnr, ssim, canny, blur, depth, iou, sampson, lpips, fid, fvd)");
    require(!paired || !arguments.reference.empty(), "--reference is missing: ", metric,
            " judges by one");
  }
  return arguments;
}

int run(int argc, char** argv) {
  cxxopts::Options options = make_options();
  const auto parsed = options.parse(argc, argv);
  if (parsed.count("help")) return std::cout << options.help() << kHelp << '\n', 0;
  const Arguments arguments = tools::parse_usage([&] { return parse(parsed); });
  const torch::NoGradGuard no_grad;
  Json result = {{"seed", arguments.seed}, {"clips", Json::object()}};
  for (const auto& [metric, network] : arguments.networks) {
    if (metric == "lpips") continue;
    const Json distance = tools::set_distance(network, arguments.clip, arguments.reference,
                                              metric == "fvd" ? arguments.fvd_frames : 1);
    std::cout << metric << "  " << std::setprecision(6) << distance["value"].get<double>() << "  ("
              << distance["clip_samples"] << " against " << distance["reference_samples"] << ")\n";
    result["sets"][metric] = distance;
  }
  std::unique_ptr<FeatureNetwork> lpips;
  if (arguments.wants("lpips"))
    lpips = std::make_unique<FeatureNetwork>(arguments.networks.at("lpips"));
  for (const auto& [name, pair] : arguments.wants_pairs() ? pairs_of(arguments) : Pairs()) {
    const Json scores = score(pair.first, pair.second, arguments, lpips.get());
    for (const auto& [metric, entry] : scores.items())
      std::cout << name << "  " << metric << "  " << std::setprecision(6)
                << (entry["mean"].is_number() ? entry["mean"].get<double>() : std::nan("")) << "  ("
                << entry["frames_judged"].get<int64_t>() << " judged)\n";
    result["clips"][name] = scores;
  }
  if (!arguments.output.empty()) write_json(arguments.output, result);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("cosmos-eval", argc, argv, run);
}
