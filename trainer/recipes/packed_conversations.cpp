#include "trainer/recipes/packed_conversations.h"

#include "modules/vlm/conversation_encoder.h"

namespace cosmos::trainer {
namespace {

using modules::kIgnoreToken;
using modules::Sequence;

const Tensors& column(const Batch& batch, const std::string& name) {
  const auto found = batch.ragged.find(name);
  require(found != batch.ragged.end(), "the samples have no ", name, ": expected conversations");
  return found->second;
}

// The sample's part of an optional column.
Tensor part(const Batch& batch, const std::string& name, std::size_t sample) {
  const auto found = batch.ragged.find(name);
  return found == batch.ragged.end() ? Tensor() : found->second[sample];
}

std::vector<int64_t> to_vector(const Tensor& x) {
  const Tensor host = x.cpu().contiguous();
  return {host.data_ptr<int64_t>(), host.data_ptr<int64_t>() + host.numel()};
}

// Of each sequence.
Tensors batch_labels(const Batch& batch) {
  Tensors labels;
  const Tensors& packs = column(batch, "labels");
  for (std::size_t s = 0; s < packs.size(); ++s)
    for (const Tensor& own : packs[s].split_with_sizes(to_vector(column(batch, "lengths")[s])))
      labels.push_back(own);
  return labels;
}

// A token's target is the label of the one behind it.
Tensor next_labels(const Tensor& labels) {
  return torch::cat(
      {labels.narrow(0, 1, labels.size(0) - 1), torch::full({1}, kIgnoreToken, labels.options())});
}

}  // namespace

std::vector<Sequence> batch_sequences(const modules::LanguageModel& model, const Batch& batch) {
  std::vector<Sequence> sequences;
  const Tensors& ids = column(batch, "input_ids");
  for (std::size_t s = 0; s < ids.size(); ++s) {
    modules::LanguageModelInputs row{.input_ids = ids[s].unsqueeze(0),
                                     .pixel_values = part(batch, "pixel_values", s),
                                     .image_grid_thw = part(batch, "image_grid_thw", s),
                                     .pixel_values_videos = part(batch, "pixel_values_videos", s),
                                     .video_grid_thw = part(batch, "video_grid_thw", s),
                                     .second_per_grid_ts = part(batch, "second_per_grid_ts", s),
                                     .offsets = {0}};
    for (const int64_t length : to_vector(column(batch, "lengths")[s]))
      row.offsets.push_back(row.offsets.back() + length);
    for (const Sequence& sequence : split_batch(model, row)) sequences.push_back(sequence);
  }
  return sequences;
}

PackedConversations pack_labelled(std::vector<Sequence> sequences, const Tensors& labels) {
  Tensors targets;
  for (const Tensor& own : labels) targets.push_back(next_labels(own));
  return {.sequences = std::move(sequences), .targets = torch::cat(targets)};
}

PackedConversations unpack_batch(const modules::LanguageModel& model, const Batch& batch) {
  return pack_labelled(batch_sequences(model, batch), batch_labels(batch));
}

int64_t last_answer_begin(const Tensor& labels) {
  const std::vector<int64_t> label = to_vector(labels);
  std::size_t end = label.size();
  while (end > 0 && label[end - 1] == kIgnoreToken) --end;
  while (end > 0 && label[end - 1] != kIgnoreToken) --end;
  return static_cast<int64_t>(end);
}

std::vector<AskedAgain> ask_again(const modules::LanguageModel& model, const Batch& batch) {
  std::vector<AskedAgain> asked;
  const Tensors labels = batch_labels(batch);
  std::vector<Sequence> sequences = batch_sequences(model, batch);
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const int64_t begin = last_answer_begin(labels[i]);
    const Tensor rest = labels[i].narrow(0, begin, labels[i].size(0) - begin);
    asked.push_back(
        {.prompt = sequences[i], .answer = to_vector(rest.masked_select(rest.ne(kIgnoreToken)))});
    asked.back().prompt.input_ids = sequences[i].input_ids.narrow(0, 0, begin);
  }
  return asked;
}

int64_t learned_tokens(const Batch& batch) {
  int64_t learned = 0;
  for (const Tensor& labels : column(batch, "labels"))
    learned += labels.ne(kIgnoreToken).sum().item<int64_t>();
  return learned;
}

TokenLogProbs token_log_probs(modules::LanguageModel& model, const PackedConversations& packed,
                              double temperature) {
  const Tensor hidden = model.forward(pack_sequences(model, packed.sequences))[0];
  const Tensor rows = packed.targets.ne(kIgnoreToken).nonzero().squeeze(1);
  std::vector<int64_t> lengths;
  for (const Sequence& sequence : packed.sequences) lengths.push_back(sequence.length());
  const Tensor owner =
      torch::repeat_interleave(torch::tensor(lengths, torch::kInt64).to(rows.device()));
  const Tensor target = packed.targets.index_select(0, rows);
  const Tensor values =
      model.run_head(hidden.index_select(0, rows),
                     [target, temperature](const Tensor& x, const modules::Linear& head) {
                       return modules::linear_log_probs(x, head, target, temperature);
                     });
  return {.values = values,
          .sequence = owner.index_select(0, rows),
          .sequences = static_cast<int64_t>(packed.sequences.size())};
}

Tensor TokenLogProbs::sum(const Tensor& of) const {
  return torch::zeros({sequences}, of.options()).index_add(0, sequence, of);
}

Tensor TokenLogProbs::count() const {
  return sum(torch::ones_like(values.detach()));
}

}  // namespace cosmos::trainer
