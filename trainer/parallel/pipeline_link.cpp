#include "trainer/parallel/pipeline_link.h"

#include <nlohmann/json.hpp>

#include "modules/hub/model_weights.h"

namespace cosmos::trainer {
namespace {

using Json = nlohmann::json;

/// Messages of a direction that have not arrived yet. No schedule waits for ever with two (one
/// micro-batch more than the receiver asked for); a description of values is two by itself.
constexpr std::size_t kMostUnderWay = 4;

Json to_json(const StageValue& v) {
  return {{"block", v.block},      {"output", v.output},      {"sizes", v.sizes},
          {"dtype", int(v.dtype)}, {"grad", v.requires_grad}, {"carried", v.carried}};
}

StageValue from_json(const Json& json) {
  return {.block = json.at("block"),
          .output = json.at("output"),
          .sizes = json.at("sizes"),
          .dtype = static_cast<torch::Dtype>(json.at("dtype").get<int>()),
          .requires_grad = json.at("grad"),
          .carried = json.at("carried")};
}

Tensor bytes_of(const std::string& text) {
  const Tensor bytes = torch::empty({static_cast<int64_t>(text.size())}, torch::kUInt8);
  std::copy(text.begin(), text.end(), bytes.data_ptr<uint8_t>());
  return bytes;
}

}  // namespace

PipelineLink::PipelineLink(const Mesh& mesh, const std::string& name, int64_t sender,
                           int64_t receiver)
    : group_(mesh.axis("pipeline").subgroup(name, {sender, receiver})) {}

void PipelineLink::send(const Tensors& tensors) {
  if (tensors.empty()) return;
  for (; sending_.size() >= kMostUnderWay; sending_.pop_front()) sending_.front().first.wait();
  std::vector<Message> messages;
  Tensors kept;
  for (const Tensor& x : tensors) {
    kept.push_back(x.detach().contiguous());
    messages.push_back({.x = kept.back(), .peer = 1});
    sent_ += static_cast<int64_t>(x.nbytes());
  }
  sending_.emplace_back(group_->exchange(messages, {}), std::move(kept));
}

Pending PipelineLink::receive(const Tensors& tensors) const {
  if (tensors.empty()) return {};
  std::vector<Message> messages;
  for (const Tensor& x : tensors) messages.push_back({.x = x, .peer = 0});
  return group_->exchange({}, messages);
}

void PipelineLink::send_layout(const StageLayout& layout) {
  Json json = Json::array();
  for (const StageValue& value : layout) json.push_back(to_json(value));
  const std::string text = json.dump();
  const int64_t sent = sent_;
  send({torch::full({1}, static_cast<int64_t>(text.size()), torch::kInt64)});
  send({bytes_of(text)});
  sent_ = sent;
}

StageLayout PipelineLink::receive_layout() const {
  const Tensor size = torch::empty({1}, torch::kInt64);
  receive({size}).wait();
  const Tensor bytes = torch::empty({size.item<int64_t>()}, torch::kUInt8);
  receive({bytes}).wait();
  const auto* begin = reinterpret_cast<const char*>(bytes.data_ptr<uint8_t>());
  StageLayout layout;
  for (const Json& value : Json::parse(begin, begin + bytes.numel()))
    layout.push_back(from_json(value));
  return layout;
}

void PipelineLink::finish() {
  for (auto& [pending, tensors] : sending_) pending.wait();
  sending_.clear();
}

TensorMap share_tensors(const Group& group, const TensorMap& mine, torch::Device device) {
  Json list = Json::object();
  for (const auto& [name, x] : mine)
    list[name] = {{"sizes", x.sizes().vec()}, {"dtype", int(x.scalar_type())}};
  TensorMap all = mine;
  const std::vector<std::string> lists = group.all_gather_text(list.dump());
  std::set<std::string> seen;
  for (int64_t rank = 0; rank < group.size(); ++rank) {
    for (const auto& [name, item] : Json::parse(lists[rank]).items()) {
      if (!seen.insert(name).second) continue;
      const auto dtype = static_cast<torch::Dtype>(item.at("dtype").get<int>());
      const Tensor x = rank == group.rank()
                           ? mine.at(name).detach().contiguous()
                           : torch::empty(item.at("sizes").get<std::vector<int64_t>>(),
                                          torch::TensorOptions().dtype(dtype).device(device));
      if (x.numel() > 0) group.broadcast(x, rank).wait();
      all[name] = x;
    }
  }
  return all;
}

}  // namespace cosmos::trainer
