#include "modules/vlm/sequence.h"

namespace cosmos::modules {
namespace {

// The defined ones of a field in all sequences, one behind the other; undefined when there is none.
Tensor concatenate(const std::vector<Sequence>& sequences, Tensor Sequence::*field) {
  Tensors parts;
  for (const Sequence& sequence : sequences)
    if ((sequence.*field).defined()) parts.push_back(sequence.*field);
  return parts.empty() ? Tensor() : torch::cat(parts);
}

// Seconds of every video: where one sequence names them, those that do not count 1 each.
Tensor all_seconds(const std::vector<Sequence>& sequences) {
  if (!concatenate(sequences, &Sequence::second_per_grid_ts).defined()) return {};
  Tensors parts;
  for (const Sequence& sequence : sequences) {
    if (!sequence.video_grid_thw.defined()) continue;
    parts.push_back(sequence.second_per_grid_ts.defined()
                        ? sequence.second_per_grid_ts.to(torch::kFloat64)
                        : torch::ones({sequence.video_grid_thw.size(0)}, torch::kFloat64));
  }
  return parts.empty() ? Tensor() : torch::cat(parts);
}

// int64 [L]
Tensor sequence_types(const LanguageModel& model, const Sequence& sequence) {
  Tensor types = token_types(model.config(), sequence.input_ids);
  if (sequence.answer_begin >= 0)
    types.narrow(0, sequence.answer_begin, sequence.length() - sequence.answer_begin).zero_();
  return types;
}

Tensor sequence_position_ids(const LanguageModel& model, const Sequence& sequence,
                             const Tensor& types) {
  return model.positions({.input_ids = sequence.input_ids.unsqueeze(0),
                          .mm_token_type_ids = types.unsqueeze(0),
                          .image_grid_thw = sequence.image_grid_thw,
                          .video_grid_thw = sequence.video_grid_thw,
                          .second_per_grid_ts = sequence.second_per_grid_ts});
}

// Tokens of every sequence, without padding.
Tensors sequence_ids(const LanguageModelInputs& inputs) {
  const auto& offsets = inputs.offsets;
  Tensors rows;
  for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
    rows.push_back(inputs.input_ids[0].narrow(0, offsets[s], offsets[s + 1] - offsets[s]));
  if (!offsets.empty()) return rows;
  rows = inputs.input_ids.unbind(0);
  if (inputs.attention_mask.defined())
    for (std::size_t r = 0; r < rows.size(); ++r)
      rows[r] = rows[r].masked_select(inputs.attention_mask[static_cast<int64_t>(r)].ne(0));
  return rows;
}

// Deals out the grids and pixels of a batch to its rows.
class VisualDealer {
 public:
  VisualDealer(const Tensor& pixels, const Tensor& grid_thw, int64_t merge, const char* name)
      : pixels_(pixels), grid_thw_(grid_thw), merge_(merge), name_(name) {
    if (grid_thw.defined()) grids_ = read_grids(grid_thw, name, merge);
  }

  /// The next grids whose tokens add to `tokens`, with their pixels.
  void take(int64_t tokens, Tensor& pixels, Tensor& grid_thw) {
    const int64_t first = next_, first_patch = patch_;
    int64_t taken = 0;
    while (taken < tokens && next_ < static_cast<int64_t>(grids_.size())) {
      const int64_t size = patches(grids_[next_++]);
      patch_ += size;
      taken += size / (merge_ * merge_);
    }
    require(taken == tokens, name_, ": a row's grids give ", taken, " tokens, its input_ids have ",
            tokens);
    if (tokens == 0) return;
    grid_thw = grid_thw_.narrow(0, first, next_ - first);
    pixels = pixels_.narrow(0, first_patch, patch_ - first_patch);
  }
  int64_t next() const { return next_; }

 private:
  Tensor pixels_, grid_thw_;
  Grids grids_;
  int64_t merge_;
  const char* name_;
  int64_t next_ = 0, patch_ = 0;
};

}  // namespace

Sequence to_device(Sequence sequence, torch::Device device) {
  for (Tensor* tensor :
       {&sequence.input_ids, &sequence.pixel_values, &sequence.image_grid_thw,
        &sequence.pixel_values_videos, &sequence.video_grid_thw, &sequence.second_per_grid_ts})
    if (tensor->defined()) *tensor = tensor->to(device);
  return sequence;
}

std::vector<Sequence> split_batch(const LanguageModel& model, const LanguageModelInputs& inputs) {
  const LanguageModelConfig& config = model.config();
  const int64_t merge = config.vision.spatial_merge_size;
  VisualDealer images(inputs.pixel_values, inputs.image_grid_thw, merge, "image_grid_thw");
  VisualDealer videos(inputs.pixel_values_videos, inputs.video_grid_thw, merge, "video_grid_thw");
  std::vector<Sequence> sequences;
  for (const Tensor& ids : sequence_ids(inputs)) {
    Sequence sequence{.input_ids = ids};
    const auto count = [&](int64_t token) {
      return config.has_vision() ? sequence.input_ids.eq(token).sum().item<int64_t>() : 0;
    };
    images.take(count(config.image_token_id), sequence.pixel_values, sequence.image_grid_thw);
    const int64_t first_video = videos.next();
    videos.take(count(config.video_token_id), sequence.pixel_values_videos,
                sequence.video_grid_thw);
    if (inputs.second_per_grid_ts.defined() && videos.next() > first_video)
      sequence.second_per_grid_ts =
          inputs.second_per_grid_ts.narrow(0, first_video, videos.next() - first_video);
    sequences.push_back(sequence);
  }
  return sequences;
}

LanguageModelInputs pack_sequences(const LanguageModel& model,
                                   const std::vector<Sequence>& sequences) {
  require(!sequences.empty(), "pack_sequences: no sequence given");
  LanguageModelInputs packed;
  Tensors positions, types;
  packed.offsets = {0};
  for (const Sequence& sequence : sequences) {
    packed.offsets.push_back(packed.offsets.back() + sequence.length());
    types.push_back(sequence_types(model, sequence));
    positions.push_back(sequence_position_ids(model, sequence, types.back()));
  }
  packed.input_ids = concatenate(sequences, &Sequence::input_ids).unsqueeze(0);
  packed.mm_token_type_ids = torch::cat(types).unsqueeze(0);
  packed.position_ids = torch::cat(positions, 2);
  packed.pixel_values = concatenate(sequences, &Sequence::pixel_values);
  packed.image_grid_thw = concatenate(sequences, &Sequence::image_grid_thw);
  packed.pixel_values_videos = concatenate(sequences, &Sequence::pixel_values_videos);
  packed.video_grid_thw = concatenate(sequences, &Sequence::video_grid_thw);
  packed.second_per_grid_ts = all_seconds(sequences);
  return packed;
}

}  // namespace cosmos::modules
