#include "tools/curate/shards.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <set>

#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "tools/curate/caption.h"
#include "tools/curate/encode.h"
#include "tools/curate/ids.h"
#include "tools/curate/publish.h"
#include "tools/curate/tar_writer.h"

namespace cosmos::curate {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kShardsOfPart = 1000;

struct Sample {
  std::string id, file, meta, caption;
};

std::string shard_name(int64_t n) {
  char name[64];
  std::snprintf(name, sizeof(name), "part_%06lld/%06lld.tar",
                static_cast<long long>(n / kShardsOfPart), static_cast<long long>(n));
  return name;
}

/// The shards of one bin.
class Bin {
 public:
  Bin(fs::path folder, fs::path output, const Config& config)
      : folder_(std::move(folder)), output_(std::move(output)), config_(config) {
    for (const std::string& kind : encoded_kinds(config)) kinds_.push_back(kind);
  }

  void add(Sample sample) { samples_.push_back(std::move(sample)); }

  /// Writes what is not there yet and returns every file of the bin.
  std::vector<fs::path> write() {
    const fs::path info_file = folder_ / "wdinfo.json";
    const Json before =
        modules::is_file(info_file) ? modules::read_json(info_file) : Json::object();
    std::vector<fs::path> files = {info_file};
    Json names = Json::array(), keys = Json::object();
    const auto size = static_cast<std::size_t>(config_.outputs.shard_clips);
    for (std::size_t first = 0; first < samples_.size(); first += size) {
      const std::vector<Sample> part(
          samples_.begin() + static_cast<std::ptrdiff_t>(first),
          samples_.begin() + static_cast<std::ptrdiff_t>(std::min(first + size, samples_.size())));
      const std::string name = shard_name(static_cast<int64_t>(first / size));
      const std::string key = key_of(part);
      bool there = before.value("shard_keys", Json::object()).value(name, "") == key;
      for (const std::string& kind : kinds_) {
        files.push_back(folder_ / kind / name);
        there = there && modules::is_file(files.back());
      }
      keys[name] = key;
      if (!there) write_shard(part, name);
      names.push_back(name);
    }
    modules::write_json(info_file, {{"data_keys", kinds_},
                                    {"chunk_size", config_.outputs.shard_clips},
                                    {"data_list", names},
                                    {"root", fs::relative(folder_, output_).string()},
                                    {"total_key_count", samples_.size()},
                                    {"shard_keys", keys}});
    return files;
  }

 private:
  std::string key_of(const std::vector<Sample>& part) const {
    std::string text;
    for (const Sample& s : part)
      text += s.caption + "\n" + s.meta + std::to_string(fs::file_size(output_ / s.file));
    return uuid5(text);
  }

  void write_shard(const std::vector<Sample>& part, const std::string& name) const {
    for (const std::string& kind : kinds_) {
      TarWriter shard(folder_ / kind / name);
      for (const Sample& s : part) add_member(shard, kind, s);
      shard.commit();
    }
  }

  void add_member(TarWriter& shard, const std::string& kind, const Sample& s) const {
    if (kind == "video") {
      shard.add_file(s.id + ".mp4", output_ / s.file);
    } else if (kind == "metas") {
      shard.add(s.id + ".json", s.meta);
      if (!s.caption.empty()) shard.add(s.id + ".txt", s.caption + "\n");
    } else {
      shard.add_file(s.id + "." + kind + ".safetensors", output_ / kind / (s.id + ".safetensors"));
    }
  }

  fs::path folder_, output_;
  const Config& config_;
  std::vector<std::string> kinds_ = {"video", "metas"};
  std::vector<Sample> samples_;
};

/// Shards and indexes of an earlier, other set.
void remove_others(const fs::path& root, const std::set<fs::path>& files) {
  std::vector<fs::path> old;
  for (const auto& entry : fs::recursive_directory_iterator(root))
    if (entry.is_regular_file() && files.count(entry.path()) == 0 &&
        (entry.path().extension() == ".tar" || entry.path().filename() == "wdinfo.json"))
      old.push_back(entry.path());
  for (const fs::path& file : old) {
    fs::remove(file);
    std::error_code ignored;  // fs::remove leaves folders that hold something
    for (fs::path p = file.parent_path(); p != root && fs::remove(p, ignored);
         p = p.parent_path()) {
    }
  }
}

}  // namespace

std::string shard_bin(int64_t height, int64_t width, int64_t length_us) {
  const int64_t side = std::min(height, width);
  const double aspect = static_cast<double>(width) / static_cast<double>(height);
  const char* resolution = side >= 1080 ? "1080" : side >= 720 ? "720" : "lt_720";
  const char* ratio = aspect < 0.65   ? "9_16"
                      : aspect < 0.88 ? "3_4"
                      : aspect < 1.16 ? "1_1"
                      : aspect < 1.55 ? "4_3"
                                      : "16_9";
  const char* duration = length_us < 5'000'000    ? "0_5"
                         : length_us < 10'000'000 ? "5_10"
                         : length_us < 30'000'000 ? "10_30"
                                                  : "30_inf";
  return std::string("resolution_") + resolution + "/aspect_ratio_" + ratio + "/duration_" +
         duration;
}

void write_shards(Store& store, const Config& config) {
  if (config.outputs.shard_clips == 0) return;
  const fs::path output = config.output, root = output / "webdataset";
  fs::create_directories(root);
  std::map<std::string, Bin> bins;
  for (const Source& source : store.sources("analysed"))
    for (const Segment& clip : store.segments(source.id)) {
      if (clip.state != State::kKept) continue;
      const std::string name =
          shard_bin(source.info.value("height", int64_t{1}), source.info.value("width", int64_t{1}),
                    clip.end_us - clip.begin_us);
      bins.try_emplace(name, root / name, output, config)
          .first->second.add({clip.id, clip.file, json_line(clip_json(source, clip)),
                              caption_of(store, config, clip)});
    }
  std::set<fs::path> files = {root / "wdinfo_list.csv"};
  std::string list;
  for (auto& [name, bin] : bins) {
    for (const fs::path& file : bin.write()) files.insert(file);
    list += "webdataset/" + name + "/wdinfo.json\n";
  }
  modules::write_file(root / "wdinfo_list.csv", list);
  remove_others(root, files);
}

}  // namespace cosmos::curate
