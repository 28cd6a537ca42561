#include "trainer/core/dataset.h"

#include "modules/core/device.h"

namespace cosmos::trainer {

Batch collate(const std::vector<Sample>& samples) {
  require(!samples.empty(), "collate: a batch needs at least one sample");
  Batch batch;
  std::map<std::string, Tensors> columns;
  for (const Sample& sample : samples) {
    batch.indices.push_back(sample.index);
    for (const auto& [name, tensor] : sample.tensors) columns[name].push_back(tensor);
    for (const auto& [name, tensor] : sample.ragged) batch.ragged[name].resize(samples.size());
    for (const auto& [name, value] : sample.text) batch.text[name].push_back(value);
  }
  for (auto& [name, tensors] : batch.ragged)
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const auto found = samples[i].ragged.find(name);
      if (found != samples[i].ragged.end()) tensors[i] = found->second;
    }
  for (auto& [name, tensors] : columns) {
    require(tensors.size() == samples.size(), "collate: ", name, " is missing from ",
            samples.size() - tensors.size(), " of ", samples.size(), " samples");
    for (const Tensor& tensor : tensors)
      require(tensor.sizes() == tensors[0].sizes(), "collate: ", name, " has shapes ",
              tensors[0].sizes(), " and ", tensor.sizes(),
              " in one batch (samples of different shapes belong to different buckets)");
    batch.tensors[name] = torch::stack(tensors);
  }
  return batch;
}

Batch to_device(Batch batch, torch::Device device) {
  for (auto& [name, tensor] : batch.tensors) tensor = modules::to_device(tensor, device);
  for (auto& [name, tensors] : batch.ragged)
    for (Tensor& tensor : tensors)
      if (tensor.defined()) tensor = modules::to_device(tensor, device);
  return batch;
}

}  // namespace cosmos::trainer
