#include "trainer/data/registry.h"

#include <map>

#include "modules/core/fields.h"
#include "trainer/data/multiview_dataset.h"
#include "trainer/data/video_dataset.h"

namespace cosmos::trainer {
namespace {

struct Entry {
  DatasetFactory factory;
  DatasetCheck check;
};

template <typename Config>
Config read_config(const Json& json, const std::string& where) {
  Config config;
  modules::read_fields(json, config, where, modules::UnknownKeys::kRefuse);
  validate(config, where);
  return config;
}

// A dataset that has its settings in fields.
template <typename Data, typename Config>
Entry entry_of() {
  return {[](const Json& json, const std::string& where) -> std::shared_ptr<Dataset> {
            return std::make_shared<Data>(read_config<Config>(json, where), where);
          },
          [](const Json& json, const std::string& where) {
            return modules::write_fields(read_config<Config>(json, where));
          }};
}

std::map<std::string, Entry>& entries() {
  static std::map<std::string, Entry> table{
      {"multiview", entry_of<MultiViewDataset, MultiViewDatasetConfig>()},
      {"video", entry_of<VideoDataset, VideoDatasetConfig>()}};
  return table;
}

/// The entry that `config` names, and the settings without the name.
std::pair<std::string, Json> split(const Json& config, const std::string& where) {
  require(config.is_object(), where, ": expected an object, got ", modules::describe(config));
  Json rest = config;
  std::string type = "video";
  if (auto found = rest.find("type"); found != rest.end()) {
    require(found->is_string(), where, ".type: expected the name of a dataset");
    type = *found;
    rest.erase(found);
  }
  std::vector<std::string> known;
  for (const auto& [name, entry] : entries()) known.push_back(name);
  const std::string near = modules::nearest(type, known);
  require(entries().count(type) > 0, where, ".type: \"", type, "\" is not a dataset",
          near.empty() ? "" : " (did you mean " + near + "?)");
  return {type, rest};
}

}  // namespace

void register_dataset(const std::string& type, DatasetFactory factory, DatasetCheck check) {
  entries()[type] = {std::move(factory), std::move(check)};
}

std::shared_ptr<Dataset> make_dataset(const Json& config, const std::string& where) {
  const auto [type, rest] = split(config, where);
  return entries()[type].factory(rest, where);
}

Json check_dataset(const Json& config, const std::string& where) {
  const auto [type, rest] = split(config, where);
  const Entry& entry = entries()[type];
  Json resolved = entry.check ? entry.check(rest, where) : rest;
  resolved["type"] = type;
  return resolved;
}

}  // namespace cosmos::trainer
