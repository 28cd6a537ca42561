// Clips and pictures in and out: codecs, timing, rotation, damage, limits.
#include <catch2/catch.hpp>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <set>
#include <sys/resource.h>

#include "trainer/data/media_writer.h"
#include "trainer/data/video_reader.h"

using namespace cosmos;
using namespace cosmos::trainer;
namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path;
  Folder() {
    std::string name = (fs::temp_directory_path() / "cosmos_media_XXXXXX").string();
    path = mkdtemp(name.data());
  }
  ~Folder() { fs::remove_all(path); }
};

// A bright bar moves over a smooth picture; its column tells the frame number.
Tensor moving_bar(int64_t T, int64_t H, int64_t W) {
  Tensor x = torch::linspace(40, 120, W).view({1, 1, W, 1}).expand({T, H, W, 3}).clone();
  for (int64_t t = 0; t < T; ++t) x[t].narrow(1, (t * 2) % (W - 8), 8).fill_(230);
  return x.to(torch::kUInt8).contiguous();
}

double psnr(const Tensor& a, const Tensor& b) {
  const double mse = (a.to(torch::kFloat32) - b.to(torch::kFloat32)).pow(2).mean().item<double>();
  return mse == 0 ? 99 : 10 * std::log10(255 * 255 / mse);
}

bool skip_without(const char* what, bool present) {
  if (!present) std::cout << "SKIPPED: " << what << " is not there\n";
  return !present;
}

bool run(const std::string& command) {
  return std::system(("( " + command + " ) </dev/null >/dev/null 2>&1").c_str()) == 0;
}
bool has_ffmpeg() {
  return run("ffmpeg -version");
}
bool has_encoder(const std::string& name) {
  return run("ffmpeg -hide_banner -encoders | grep -q ' " + name + " '");
}

Tensor raw_frames(const fs::path& path, const std::string& options, int64_t H, int64_t W) {
  const fs::path raw = path.string() + ".raw";
  REQUIRE(run("ffmpeg -y " + options + " -i " + path.string() +
              " -fps_mode passthrough -f rawvideo -pix_fmt rgb24 " + raw.string()));
  std::ifstream in(raw, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  const int64_t T = static_cast<int64_t>(bytes.size()) / (H * W * 3);
  return torch::from_blob(bytes.data(), {T, H, W, 3}, torch::kUInt8).clone();
}

}  // namespace

TEST_CASE("a written clip reads back: count, rate, size, pictures", "[media]") {
  if (skip_without("FFmpeg", media_available())) return;
  Folder dir;
  const Tensor frames = moving_bar(20, 48, 64);
  for (const char* name : {"a.mp4", "a.avi", "a.mkv", "a.mov"}) {
    INFO(name);
    write_video(dir.path / name, frames, {.fps = 10, .quality = 6, .keyframe_interval = 6});
    const VideoInfo info = probe_video(dir.path / name);
    CHECK(info.frames() == 20);
    CHECK(info.height == 48);
    CHECK(info.width == 64);
    CHECK(info.fps == Approx(10).epsilon(0.01));
    CHECK(info.duration() == Approx(2).epsilon(0.01));
    const Tensor back = read_video(dir.path / name, info, {});
    REQUIRE(back.sizes() == frames.sizes());
    CHECK(psnr(back, frames) > 30);
    // Any window is the same as that part of a read from the start.
    for (const int64_t first : {0, 1, 5, 6, 7, 13, 18}) {
      const Tensor window = read_video(dir.path / name, info, {.first = first, .frames = 2});
      CHECK(torch::equal(window, back.narrow(0, first, 2)));
    }
  }
  CHECK(std::distance(fs::directory_iterator(dir.path), {}) == 4);  // no temporary files
}

TEST_CASE("resampling takes the frames nearest in time", "[media]") {
  if (skip_without("FFmpeg", media_available())) return;
  Folder dir;
  write_video(dir.path / "a.mp4", moving_bar(21, 32, 64), {.fps = 10, .quality = 6});
  const VideoInfo info = probe_video(dir.path / "a.mp4");
  const Tensor all = read_video(dir.path / "a.mp4", info, {});
  CHECK(timeline(info, 5).size() == 11);
  CHECK(timeline(info, 20).size() == 41);
  const Tensor slow = read_video(dir.path / "a.mp4", info, {.first = 2, .frames = 3, .fps = 5});
  CHECK(torch::equal(slow, all.index({torch::tensor({4, 6, 8})})));
  const Tensor fast = read_video(dir.path / "a.mp4", info, {.first = 4, .frames = 4, .fps = 30});
  CHECK(torch::equal(fast, all.index({torch::tensor({1, 2, 2, 2})})));  // .133 .167 .2 .233
  CHECK_THROWS_WITH(
      read_video(dir.path / "a.mp4", info, {.first = 9, .frames = 3, .fps = 5}),
      Catch::Contains("frames 9 to 11 asked for, but the clip has 11 frames at the wanted rate"));
}

TEST_CASE("sizes: crop keeps the middle, pad keeps all, stretch fills", "[media]") {
  if (skip_without("FFmpeg", media_available())) return;
  Folder dir;
  Tensor image = torch::zeros({40, 80, 3}, torch::kUInt8);
  image.narrow(1, 20, 40).fill_(200);
  write_png(dir.path / "a.png", image);
  CHECK(torch::equal(read_image(dir.path / "a.png"), image));
  const Tensor crop = read_image(dir.path / "a.png", {20, 20, Fit::kCrop});
  CHECK(crop.sizes() == at::IntArrayRef({20, 20, 3}));
  CHECK(crop.narrow(1, 2, 16).min().item<int>() > 190);
  const Tensor pad = read_image(dir.path / "a.png", {20, 20, Fit::kPad});
  CHECK(pad.narrow(0, 0, 5).max().item<int>() == 0);
  CHECK(pad[10][10][0].item<int>() > 190);
  const Tensor stretch = read_image(dir.path / "a.png", {20, 20, Fit::kStretch});
  CHECK(stretch[10][1][0].item<int>() < 20);
  CHECK(stretch[1][10][0].item<int>() > 190);
  write_video(dir.path / "odd.mp4", moving_bar(3, 33, 47), {.quality = 6});
  CHECK(read_video(dir.path / "odd.mp4").sizes() == at::IntArrayRef({3, 34, 48, 3}));
}

TEST_CASE("contact sheets and conversions keep every pixel", "[media]") {
  const Tensor frames = moving_bar(5, 8, 16);
  const Tensor sheet = contact_sheet(frames, 3, 2);
  CHECK(sheet.sizes() == at::IntArrayRef({18, 52, 3}));
  CHECK(torch::equal(sheet.narrow(0, 10, 8).narrow(1, 18, 16), frames[4]));
  CHECK(sheet[8][0][0].item<int>() == 255);
  CHECK(torch::equal(to_frames(from_frames(frames)), frames));
  CHECK(torch::equal(channels_last(channels_first(frames)), frames));
}

TEST_CASE("codecs, variable rates and rotation agree with the ffmpeg program", "[media][ffmpeg]") {
  if (skip_without("FFmpeg", media_available()) || skip_without("the ffmpeg program", has_ffmpeg()))
    return;
  Folder dir;
  write_video(dir.path / "a.mkv", moving_bar(14, 48, 64), {.fps = 10, .codec = "ffv1"});
  const std::string source = "ffmpeg -y -i " + (dir.path / "a.mkv").string() + " ";
  struct Case {
    const char *name, *encoder, *options;
  };
  for (const Case& c : {Case{"h264.mp4", "libx264", "-g 5 -bf 2 -x264opts open-gop=1"},
                        Case{"h265.mp4", "libx265", "-g 5 -x265-params log-level=none:open-gop=1"},
                        Case{"vp9.webm", "libvpx-vp9", "-g 5 -deadline realtime -auto-alt-ref 1"},
                        Case{"vp8.webm", "libvpx", "-g 5 -deadline realtime -auto-alt-ref 1"},
                        Case{"av1.mkv", "libaom-av1", "-g 5 -cpu-used 8"},
                        Case{"mpeg4.avi", "mpeg4", "-g 5 -bf 2 -q:v 3"},
                        Case{"mpeg2.ts", "mpeg2video", "-r 25 -g 5 -bf 2 -q:v 3"},
                        Case{"mjpeg.avi", "mjpeg", "-q:v 3"}}) {
    INFO(c.name);
    if (skip_without(c.encoder, has_encoder(c.encoder))) continue;
    const fs::path path = dir.path / c.name;
    REQUIRE(run(source + "-pix_fmt yuv420p -strict -1 -c:v " + c.encoder + " " + c.options + " " +
                path.string()));
    const Tensor truth = raw_frames(path, "", 48, 64);
    const VideoInfo info = probe_video(path);
    CHECK(info.frames() == truth.size(0));
    const Tensor all = read_video(path, info, {});
    REQUIRE(all.sizes() == truth.sizes());
    CHECK(torch::equal(all, truth));
    for (const int64_t first : {3, 5, 9, 12})
      CHECK(torch::equal(read_video(path, info, {.first = first, .frames = 2}),
                         truth.narrow(0, first, 2)));
  }
}

TEST_CASE("bicubic pictures are the ffmpeg program's", "[media][ffmpeg]") {
  if (skip_without("FFmpeg", media_available()) || skip_without("the ffmpeg program", has_ffmpeg()))
    return;
  Folder dir;
  const fs::path clip = dir.path / "a.mp4", raw = dir.path / "a.raw";
  write_video(clip, moving_bar(4, 90, 161), {.fps = 10});
  REQUIRE(
      run("ffmpeg -i " + clip.string() + " -f rawvideo -pix_fmt rgb24 -s 48x27 " + raw.string()));
  std::ifstream in(raw, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  const Tensor want = torch::from_blob(bytes.data(), {4, 27, 48, 3}, torch::kUInt8);
  const auto read = [&](Filter filter) {
    return read_video(
        clip, {.size = {.height = 27, .width = 48, .fit = Fit::kStretch, .filter = filter}});
  };
  CHECK(read(Filter::kBicubic).equal(want));
  CHECK(!read(Filter::kArea).equal(want));
}

TEST_CASE("a variable frame rate is read by its timestamps", "[media][ffmpeg]") {
  if (skip_without("FFmpeg", media_available()) || skip_without("the ffmpeg program", has_ffmpeg()))
    return;
  Folder dir;
  write_video(dir.path / "a.mkv", moving_bar(20, 48, 64), {.fps = 10, .codec = "ffv1"});
  // Frames 4 to 13 are dropped: one second between two frames.
  REQUIRE(run("ffmpeg -y -i " + (dir.path / "a.mkv").string() +
              " -vf \"select='not(between(n,4,13))'\" -fps_mode vfr -c:v mpeg4 -q:v 2 " +
              (dir.path / "vfr.mp4").string()));
  const VideoInfo info = probe_video(dir.path / "vfr.mp4");
  REQUIRE(info.frames() == 10);
  CHECK(info.times[4] - info.times[3] == Approx(1.1).epsilon(0.01));
  CHECK(timeline(info, 10).size() == 20);
  const Tensor all = read_video(dir.path / "vfr.mp4", info, {});
  const Tensor even = read_video(dir.path / "vfr.mp4", info, {.fps = 10});
  CHECK(torch::equal(even[8], all[3]));  // .8 s is nearer to .3 than to 1.4
  CHECK(torch::equal(even[9], all[4]));
  CHECK(torch::equal(even[19], all[9]));
}

TEST_CASE("rotation metadata turns the pictures as players do", "[media][ffmpeg]") {
  if (skip_without("FFmpeg", media_available()) || skip_without("the ffmpeg program", has_ffmpeg()))
    return;
  Folder dir;
  Tensor frames = moving_bar(3, 48, 64);
  frames.narrow(1, 0, 12).fill_(10);  // a dark top edge
  write_video(dir.path / "a.mp4", frames, {.quality = 6});
  for (const int degrees : {90, 180, 270}) {
    INFO(degrees);
    const fs::path path = dir.path / ("r" + std::to_string(degrees) + ".mp4");
    REQUIRE(run("ffmpeg -y -i " + (dir.path / "a.mp4").string() +
                " -c copy -metadata:s:v:0 rotate=" + std::to_string(degrees) + " " +
                path.string()));
    const VideoInfo info = probe_video(path);
    CHECK(info.height == (degrees == 180 ? 48 : 64));
    const Tensor truth = raw_frames(path, "", info.height, info.width);
    CHECK(psnr(read_video(path, info, {}), truth) > 45);
    CHECK(read_video(path, info, {.size = {32, 32}}).sizes() == at::IntArrayRef({3, 32, 32, 3}));
  }
}

TEST_CASE("damaged and hostile media give one-line errors", "[media]") {
  if (skip_without("FFmpeg", media_available())) return;
  Folder dir;
  const auto put = [&](const char* name, const std::string& bytes) {
    std::ofstream(dir.path / name, std::ios::binary) << bytes;
    return dir.path / name;
  };
  write_video(dir.path / "good.mp4", moving_bar(40, 48, 64),
              {.quality = 6, .keyframe_interval = 50});
  std::ifstream in(dir.path / "good.mp4", std::ios::binary);
  const std::string good((std::istreambuf_iterator<char>(in)), {});
  CHECK_THROWS_WITH(probe_video(dir.path / "none.mp4"), Catch::Contains("No such file"));
  CHECK_THROWS_WITH(probe_video(dir.path), Catch::Contains("is a folder"));
  CHECK_THROWS_WITH(probe_video(put("empty.mp4", "")), Catch::Contains("is empty"));
  CHECK_THROWS_WITH(probe_video(put("text.mp4", "hello")), Catch::Contains("not a readable video"));
  CHECK_THROWS_AS(probe_video(put("head.mp4", good.substr(0, 40))), Error);
  CHECK_THROWS_WITH(probe_video(put("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n" +
                                                     (dir.path / "good.mp4").string() + "\n")),
                    Catch::Contains("not a readable video"));
  // Cut short, or with a hole: fewer frames or an Error, never anything else.
  for (std::size_t length : {good.size() / 4, good.size() / 2, good.size() - 10}) {
    const fs::path cut = put("cut.mp4", good.substr(0, length));
    try {
      const VideoInfo info = probe_video(cut);
      const Tensor frames = read_video(cut, info, {});
      CHECK(frames.size(0) == info.frames());
    } catch (const Error& error) {
      CHECK_THAT(error.what(), Catch::StartsWith(cut.string() + ": "));
      CHECK(std::string(error.what()).find('\n') == std::string::npos);
    }
  }
  for (std::size_t seed = 0; seed < 40; ++seed) {
    std::string bytes = good;
    for (std::size_t i = 0; i < 8; ++i)
      bytes[(seed * 7919 + i * 104729) % bytes.size()] ^= 0x5a + i;
    const fs::path bad = put("bad.mp4", bytes);
    try {
      read_video(bad, {}, {.max_side = 256, .max_frames = 1000, .max_bytes = 1 << 26});
    } catch (const Error&) {
    }
  }
  Tensor wide = torch::zeros({1, 20000, 3}, torch::kUInt8);
  write_png(dir.path / "wide.png", wide);
  CHECK_THROWS_WITH(read_image(dir.path / "wide.png"), Catch::Contains("larger than the limit"));
  wide = torch::zeros({1, 10000, 3}, torch::kUInt8);
  write_png(dir.path / "wide.png", wide);
  CHECK_THROWS_WITH(read_image(dir.path / "wide.png", {1024, 1024}),
                    Catch::Contains("too elongated"));
  CHECK(read_image(dir.path / "wide.png", {64, 64, Fit::kPad}).size(0) == 64);
  CHECK_THROWS_WITH(read_video(dir.path / "good.mp4", {}, {.max_bytes = 1000}),
                    Catch::Contains("more than the limit of 1000 bytes"));
  CHECK_THROWS_WITH(timeline(probe_video(dir.path / "good.mp4"), 1000, {.max_frames = 10}),
                    Catch::Contains("more than the limit"));
}

TEST_CASE("a clip with sound only is refused", "[media][ffmpeg]") {
  if (skip_without("FFmpeg", media_available()) || skip_without("the ffmpeg program", has_ffmpeg()))
    return;
  Folder dir;
  const fs::path path = dir.path / "sound.mp4";
  REQUIRE(run("ffmpeg -y -f lavfi -i sine=duration=0.2 " + path.string()));
  CHECK_THROWS_WITH(probe_video(path), Catch::Contains("holds no video stream"));
}

TEST_CASE("a failed write leaves nothing under the final name", "[media]") {
  if (skip_without("FFmpeg", media_available())) return;
  Folder dir;
  const Tensor frames = moving_bar(2, 16, 16);
  CHECK_THROWS_WITH(write_video(dir.path / "a.xyz", frames), Catch::Contains("names no container"));
  CHECK_THROWS_WITH(write_video(dir.path / "a.mp4", frames, {.codec = "nope"}),
                    Catch::Contains("no video encoder called \"nope\""));
  CHECK_THROWS_WITH(write_video(dir.path / "a.mp4", frames.to(torch::kFloat32)),
                    Catch::Contains("expected uint8 [T, H, W, 3]"));
  CHECK_THROWS_WITH(write_png("/proc/nowhere/a.png", frames[0]), Catch::Contains("folder"));
  // A disk that fills up, played by a limit on the size of files.
  const Tensor noise = torch::randint(0, 255, {4, 64, 64, 3}, torch::kUInt8);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{.rlim_cur = 3000, .rlim_max = before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  CHECK_THROWS_WITH(write_video(dir.path / "a.mp4", noise), Catch::Contains("a.mp4: cannot write"));
  CHECK_THROWS_WITH(write_png(dir.path / "a.png", noise[0]), Catch::Contains("cannot write"));
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK(fs::is_empty(dir.path));
}

namespace {
void footage_agrees(const std::string& name, int64_t frames) {
  const char* named = std::getenv("COSMOS_FOOTAGE");
  const fs::path folder = named ? named : COSMOS_SOURCE_DIR "/.deps/footage";
  if (skip_without("FFmpeg", media_available()) || skip_without("the ffmpeg program", has_ffmpeg()))
    return;
  const std::string missing = name + " in " + folder.string() + " (tools/fetch_footage.sh)";
  if (skip_without(missing.c_str(), fs::exists(folder / name))) return;
  Folder dir;
  const fs::path path = dir.path / name;
  fs::copy_file(folder / name, path);
  const VideoInfo info = probe_video(path);
  CHECK(info.frames() == frames);
  CHECK(info.fps == 25);
  const Tensor truth = raw_frames(path, "", info.height, info.width);
  CHECK(torch::equal(read_video(path, info, {}), truth));
  for (const int64_t first : {int64_t{1}, int64_t{47}, frames / 2, frames - 1})
    CHECK(torch::equal(read_video(path, info, {.first = first, .frames = 1}),
                       truth.narrow(0, first, 1)));
}
}  // namespace

TEST_CASE("real footage decodes to the ffmpeg program's bytes", "[media][ffmpeg]") {
  footage_agrees("bikes.mp4", 250);
}

// Hidden from the default run: it holds a gigabyte of pixels.
TEST_CASE("high-definition footage decodes to the ffmpeg program's bytes", "[.][footage]") {
  footage_agrees("bigbuckbunny.mp4", 132);
}

TEST_CASE("the same frames give the same bytes, whatever the memory held before", "[media]") {
  Folder folder;
  if (skip_without("libx264", has_encoder("libx264"))) return;
  const auto at = [](int64_t t) { return (at::arange(96 * 64 * 3) * (t + 3)).remainder(251); };
  Tensors frames;
  for (int64_t t = 0; t < 30; ++t)
    frames.push_back(at(t / 6).view({64, 96, 3}).roll(t * 5, 1).to(torch::kUInt8));
  std::set<std::string> files;
  for (const int filler : {0x00, 0x55, 0xaa}) {
    {
      std::vector<std::vector<char>> held;
      for (int n = 0; n < 4000; ++n) held.emplace_back(1000 + 20 * n, static_cast<char>(filler));
    }
    const fs::path path = folder.path / "a.mp4";
    write_video(path, torch::stack(frames), {.fps = 10});
    std::ifstream in(path, std::ios::binary);
    files.emplace(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  CHECK(files.size() == 1);
}
