#include "trainer/data/conversation_dataset.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>

namespace cosmos::trainer {
namespace {

using modules::Conversation;
using modules::EncodedConversation;
using modules::MessagePart;
using modules::Sequence;

// `message` without the place in front, which whoever lists it names anyway.
std::string without_place(const std::string& message, const std::string& place) {
  if (message.rfind(place, 0) != 0) return message;
  const std::size_t begin = message.find_first_not_of(":. ", place.size());
  return begin == std::string::npos ? message : message.substr(begin);
}

void append(TensorMap& ragged, const char* name, const Tensor& value) {
  if (!value.defined()) return;
  Tensor& held = ragged[name];
  held = held.defined() ? torch::cat({held, value}) : value;
}

void append_sequence(TensorMap& ragged, const Sequence& sequence) {
  append(ragged, "input_ids", sequence.input_ids);
  append(ragged, "pixel_values", sequence.pixel_values);
  append(ragged, "image_grid_thw", sequence.image_grid_thw);
  append(ragged, "pixel_values_videos", sequence.pixel_values_videos);
  append(ragged, "video_grid_thw", sequence.video_grid_thw);
  append(ragged, "second_per_grid_ts", sequence.second_per_grid_ts);
}

}  // namespace

void resolve_media(Conversation& conversation, const std::filesystem::path& base) {
  for (auto& message : conversation.messages)
    for (auto& part : message.parts) {
      if (part.kind == MessagePart::Kind::kText) continue;
      const auto path = std::filesystem::path(part.value).is_absolute()
                            ? std::filesystem::path(part.value)
                            : base / part.value;
      std::error_code ignored;
      require(std::filesystem::is_regular_file(path, ignored), path.string(), ": no such file");
      part.value = path.string();
    }
}

ConversationLine read_training_line(const Json& line, const std::string& where) {
  Conversation conversation = modules::read_conversation(line, where);
  modules::check_conversation(conversation, where);
  return {.conversations = {conversation}};
}

void ConversationDataConfig::check(const std::string& where) const {
  require(!files.empty(), where, ".files: expected at least one JSONL file");
  require(on_bad == "skip" || on_bad == "refuse", where, ".on_bad: expected skip or refuse, got ",
          on_bad);
  require(max_length > 1, where, ".max_length: expected more than one token, got ", max_length);
  require(pack_length == 0 || pack_length >= max_length, where,
          ".pack_length: expected 0, or at least max_length ", max_length, ", got ", pack_length);
}

std::vector<std::vector<int64_t>> pack_bins(const std::vector<int64_t>& lengths, int64_t capacity) {
  std::vector<int64_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
  std::vector<std::vector<int64_t>> bins;
  std::multimap<int64_t, std::size_t> room;  // of each bin; the tightest that fits is taken
  for (const int64_t item : order) {
    const int64_t length = lengths[item];
    require(length <= capacity, "pack_bins: an item of ", length, " is longer than ", capacity);
    auto found = room.lower_bound(length);
    if (found == room.end()) {
      found = room.emplace(capacity, bins.size());
      bins.emplace_back();
    }
    const auto [left, bin] = *found;
    room.erase(found);
    bins[bin].push_back(item);
    room.emplace(left - length, bin);
  }
  return bins;
}

ConversationDataset::ConversationDataset(
    const ConversationDataConfig& config,
    std::shared_ptr<const modules::ConversationEncoder> encoder, const std::string& where,
    LineReader reader)
    : config_(config), encoder_(std::move(encoder)), reader_(std::move(reader)) {
  for (const auto& file : config_.files) read_file(file);
  require(!lines_.empty(), where, ": none of the lines can be used",
          left_out_.empty() ? "" : ": " + left_out_[0].first + ": " + left_out_[0].second);
  std::vector<int64_t> lengths;
  for (const Line& line : lines_) lengths.push_back(line.length);
  if (config_.pack_length == 0) {
    for (std::size_t i = 0; i < lines_.size(); ++i) packs_.push_back({static_cast<int64_t>(i)});
    return;
  }
  packs_ = pack_bins(lengths, config_.pack_length);
  const auto tokens = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  fill_ = static_cast<double>(tokens) /
          static_cast<double>(config_.pack_length * static_cast<int64_t>(packs_.size()));
}

void ConversationDataset::read_file(const std::string& path) {
  std::ifstream in(path);
  require(in.good(), path, ": cannot be read");
  std::string text;
  for (int64_t number = 1; std::getline(in, text); ++number)
    if (text.find_first_not_of(" \t\r") != std::string::npos) add_line(text, path, number);
}

void ConversationDataset::add_line(const std::string& text, const std::string& path,
                                   int64_t number) {
  Line line{.content = {}, .where = path + " line " + std::to_string(number)};
  try {
    const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    require(!json.is_discarded(), line.where, ": is not JSON");
    line.content = reader_(json, line.where);
    for (auto& conversation : line.content.conversations) {
      resolve_media(conversation, config_.media.empty() ? std::filesystem::path(path).parent_path()
                                                        : std::filesystem::path(config_.media));
      const int64_t length = encoder_->length(conversation);
      require(length <= config_.max_length, line.where, ": ", length,
              " tokens, more than max_length ", config_.max_length);
      line.length += length;
    }
    require(config_.pack_length == 0 || line.length <= config_.pack_length, line.where, ": ",
            line.length, " tokens together, more than pack_length ", config_.pack_length);
  } catch (const Error& error) {
    const std::string reason = without_place(error.what(), line.where);
    require(config_.on_bad == "skip", line.where, ": ", reason,
            " (on_bad = skip leaves such lines out)");
    left_out_.emplace_back(line.where, reason);
    return;
  }
  lines_.push_back(std::move(line));
}

Sample ConversationDataset::get(int64_t item, uint64_t seed, int64_t sample_index) {
  Sample sample{.index = sample_index, .tensors = {}, .ragged = {}, .text = {}};
  std::vector<int64_t> lengths;
  for (const int64_t index : packs_[item]) {
    const Line& line = lines_[index];
    sample.text.insert(line.content.text.begin(), line.content.text.end());
    for (const Conversation& conversation : line.content.conversations) {
      try {
        const EncodedConversation encoded =
            line.content.open
                ? EncodedConversation{.sequence = encoder_->prompt(conversation), .labels = {}}
                : encoder_->encode(conversation);
        lengths.push_back(encoded.sequence.length());
        append(sample.ragged, "labels", encoded.labels);
        append_sequence(sample.ragged, encoded.sequence);
      } catch (const Error& error) {
        fail(line.where, ": ", error.what());
      }
    }
  }
  sample.ragged["lengths"] = torch::tensor(lengths, torch::kInt64);
  return sample;
}

std::string ConversationDataset::item_name(int64_t item) const {
  const auto& pack = packs_[item];
  const std::string first = lines_[pack.front()].where;
  return pack.size() == 1 ? first
                          : first + " and " + std::to_string(pack.size() - 1) + " more in its pack";
}

}  // namespace cosmos::trainer
