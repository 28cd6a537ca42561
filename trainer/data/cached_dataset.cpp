#include "trainer/data/cached_dataset.h"

#include "modules/hub/safetensors.h"

namespace cosmos::trainer {

CachedDataset::CachedDataset(std::shared_ptr<Dataset> inner, SampleMap map, CacheOptions options)
    : inner_(std::move(inner)), map_(std::move(map)), options_(std::move(options)) {
  kept_.resize(static_cast<std::size_t>(inner_->size()));
}

std::filesystem::path CachedDataset::file(int64_t item) const {
  const std::string number = std::to_string(item);
  return options_.folder /
         ("item-" + std::string(8 - std::min<std::size_t>(8, number.size()), '0') + number +
          ".safetensors");
}

// Texts travel in the file's metadata under "text.", beside what the file belongs to.
bool CachedDataset::load(int64_t item, Sample& sample) const {
  if (!std::filesystem::exists(file(item))) return false;
  const modules::SafetensorsFile stored(file(item));
  const modules::Metadata& metadata = stored.metadata();
  const auto is = [&](const char* key, const std::string& value) {
    const auto found = metadata.find(key);
    return found != metadata.end() && found->second == value;
  };
  if (!is("fingerprint", options_.fingerprint) || !is("item", inner_->item_name(item)))
    return false;
  for (const auto& [name, tensor] : stored.tensors()) sample.tensors[name] = tensor.clone();
  for (const auto& [key, value] : metadata)
    if (key.rfind("text.", 0) == 0) sample.text[key.substr(5)] = value;
  return true;
}

void CachedDataset::store(int64_t item, const Sample& sample) const {
  std::filesystem::create_directories(options_.folder);
  modules::Metadata metadata{{"fingerprint", options_.fingerprint},
                             {"item", inner_->item_name(item)}};
  for (const auto& [name, value] : sample.text) metadata["text." + name] = value;
  modules::save_safetensors(file(item), sample.tensors, metadata);
}

Sample CachedDataset::get(int64_t item, uint64_t, int64_t sample_index) {
  std::lock_guard lock(mutex_);
  std::unique_ptr<Sample>& kept = kept_.at(static_cast<std::size_t>(item));
  Sample sample;
  if (kept) {
    sample = *kept;
  } else if (options_.folder.empty() || !load(item, sample)) {
    torch::NoGradGuard no_grad;
    sample = map_(inner_->get(item, 0, item));
    for (auto& [name, tensor] : sample.tensors) tensor = tensor.detach();
    if (options_.folder.empty()) {
      kept = std::make_unique<Sample>(sample);
    } else {
      store(item, sample);
    }
  }
  sample.index = sample_index;
  return sample;
}

void CachedDataset::precompute(const std::function<void(int64_t, int64_t)>& progress) {
  for (int64_t item = 0; item < size(); ++item) {
    try {
      get(item, 0, item);
    } catch (const Error&) {
      // An unreadable item fails again, and is counted, when the loader asks for it.
    }
    if (progress) progress(item + 1, size());
  }
}

}  // namespace cosmos::trainer
