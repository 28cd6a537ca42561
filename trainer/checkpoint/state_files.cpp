// What a checkpoint consists of, and what of it this rank holds.

#include "modules/hub/json_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/weight_folder.h"
#include "trainer/checkpoint/state.h"

namespace cosmos::trainer {
namespace {

using Pieces = std::map<std::string, Piece>;

// Of what is kept of a trained parameter.
torch::Dtype wide_dtype(const Tensor& x) {
  return x.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
}

class Builder {
 public:
  explicit Builder(const TrainState& state) : state_(state) {
    for (const auto& item : state.model.named_parameters()) {
      parameters_[item.key()] = item.value();
      names_.emplace(item.value().unsafeGetTensorImpl(), item.key());
    }
  }

  StateFiles take() { return std::move(files_); }

  /// `data`: this rank's part of something that has the shape of parameter `name`.
  Piece part(const std::string& name, const Tensor& data, torch::Dtype dtype) {
    if (is_elsewhere(name)) return absent(parameters_.at(name).sizes(), dtype);
    if (!state_.sharded || !state_.sharded->shard(name).defined()) return everywhere(data, dtype);
    const Copies copies = state_.sharded->copies(name);
    return {.info = {.dtype = dtype, .shape = parameters_.at(name).sizes().vec()},
            .region = state_.sharded->region(name),
            .data = data.detach(),
            .mine = next_++ % copies.count == copies.index};
  }

  /// A parameter itself.
  Piece parameter(const std::string& name) {
    const Tensor& whole = parameters_.at(name);
    const Tensor shard = state_.sharded ? state_.sharded->shard(name) : Tensor();
    return part(name, shard.defined() ? shard : whole, whole.scalar_type());
  }

  /// What every rank holds as a whole.
  Piece everywhere(const Tensor& data, torch::Dtype dtype) {
    return {.info = {.dtype = dtype, .shape = data.sizes().vec()},
            .region = whole_region(data.sizes()),
            .data = data.detach(),
            .mine = next_++ % state_.ranks == state_.rank};
  }

  /// A number that all ranks hold which have the block of parameter `name`.
  Piece scalar(const std::string& name, const Tensor& data, torch::Dtype dtype) {
    if (is_elsewhere(name)) return absent({}, dtype);
    Piece piece = everywhere(data, dtype);
    if (!state_.sharded) return piece;
    const Copies copies = state_.sharded->stage_ranks();
    piece.mine = (next_ - 1) % copies.count == copies.index;
    return piece;
  }

  /// The whole model, with `averages` in place of the weights where given.
  void add_model(const std::string& dir, const TensorMap* averages) {
    Pieces pieces = state_.sharded ? sharded_model(averages) : whole_model(averages);
    std::map<std::string, modules::TensorInfo> infos;
    for (const auto& [key, piece] : pieces) infos[key] = piece.info;
    const std::string base = modules::weights_base_name(state_.model);
    const auto files = modules::place_weights(base, infos);
    for (const auto& file : files)
      for (const auto& [key, info] : file.infos)
        files_[dir + "/" + file.name].tensors[key] = std::move(pieces.at(key));
    if (files.size() > 1)
      add_json(dir + "/" + base + ".safetensors.index.json", modules::weight_index(files));
    for (auto& [name, text] : state_.recipe.model_files())
      files_[dir + "/" + name].text = std::move(text);
    add_json(dir + "/config.json", modules::saved_config(state_.model));
  }

  void add_tensors(const std::string& path, Pieces pieces) {
    files_[path].tensors = std::move(pieces);
  }

  void add_adapter() {
    for (auto& [name, content] : state_.recipe.adapter_files()) {
      StateFile& file = files_["adapter/" + name];
      file.metadata = content.metadata;
      file.text = content.text;
      for (const auto& [key, tensor] : content.tensors)
        file.tensors[key] = parameter(names_.at(tensor.unsafeGetTensorImpl()));
    }
  }

 private:
  bool is_elsewhere(const std::string& name) const {
    return state_.sharded && state_.sharded->is_elsewhere(name);
  }

  /// What ranks of another stage hold.
  Piece absent(at::IntArrayRef shape, torch::Dtype dtype) {
    ++next_;
    const std::vector<int64_t> none(std::max<std::size_t>(1, shape.size()), 0);
    return {.info = {.dtype = dtype, .shape = shape.vec()},
            .region = {.offset = none, .size = none},
            .data = torch::empty({0}, dtype),
            .mine = false};
  }

  // As save_pretrained writes it.
  Pieces whole_model(const TensorMap* averages) {
    const modules::Model& model = state_.model;
    TensorMap tensors = modules::file_tensors(model);
    if (averages)
      for (const auto& [name, average] : *averages) tensors.at(model.file_key(name)) = average;
    Pieces pieces;
    for (const auto& [key, tensor] : model.to_file(std::move(tensors)))
      pieces[key] = everywhere(tensor, tensor.scalar_type());
    return pieces;
  }

  // The same keys and shapes, but where save_pretrained splits what is one tensor here: a rank's
  // part of that stays together. from_file() takes either.
  Pieces sharded_model(const TensorMap* averages) {
    Pieces pieces;
    for (const auto& entry : modules::base_tensors(state_.model))
      pieces[entry.keys.front()] = model_piece(entry, averages);
    return pieces;
  }

  Piece model_piece(const modules::BaseTensor& entry, const TensorMap* averages) {
    for (const std::string& name : entry.names) {
      if (averages && averages->count(name) > 0)
        return part(name, averages->at(name), averages->at(name).scalar_type());
      if (is_elsewhere(name))
        return part(name, {}, averages ? wide_dtype(entry.tensor) : entry.tensor.scalar_type());
      if (state_.sharded && state_.sharded->shard(name).defined()) return parameter(name);
    }
    return everywhere(entry.tensor, entry.tensor.scalar_type());
  }

  void add_json(const std::string& path, const Json& json) {
    files_[path].text = modules::json_text(json, path);
  }

  const TrainState& state_;
  StateFiles files_;
  std::map<std::string, Tensor> parameters_;
  std::map<const c10::TensorImpl*, std::string> names_;
  int64_t next_ = 0;  ///< pieces so far: the same on every rank, so that ranks take turns
};

/// optimizer_state() of this rank, and in the places of other stages' tensors empty ones.
TensorMap every_stage(const TrainState& state) {
  TensorMap all = optimizer_state(state);
  if (!state.sharded) return all;
  for (const auto& [name, parameter] : trainable_parameters(state.model)) {
    if (!state.sharded->is_elsewhere(name)) continue;
    const Tensor empty = torch::empty({0}, wide_dtype(parameter));
    all["exp_avg." + name] = all["exp_avg_sq." + name] = empty;
    all["step." + name] = torch::empty({0}, torch::kFloat32);
    if (parameter.scalar_type() != empty.scalar_type()) all["master." + name] = empty;
  }
  return all;
}

Pieces optimizer_pieces(const TrainState& state, Builder& builder) {
  Pieces pieces;
  for (const auto& [key, tensor] : every_stage(state)) {
    const auto [kind, name] = split_key(key);
    pieces[key] = kind == "step" ? builder.scalar(name, tensor, tensor.scalar_type())
                                 : builder.part(name, tensor, tensor.scalar_type());
  }
  return pieces;
}

}  // namespace

StateFiles state_files(const TrainState& state) {
  const FullyShard::WholeShapes shapes(state.sharded);
  Builder builder(state);
  if (whole_model_trains(state.model)) {
    builder.add_model("model", nullptr);
    if (state.ema) builder.add_model("ema", &state.ema->averages());
  } else {
    Pieces trained, averages;
    for (const auto& [name, tensor] : trainable_parameters(state.model))
      trained[name] = builder.parameter(name);
    builder.add_tensors("trainable.safetensors", std::move(trained));
    if (state.ema) {
      const TensorMap& mine = state.ema->averages();
      for (const auto& [name, parameter] : trainable_parameters(state.model)) {
        const auto average = mine.find(name);
        averages[name] = builder.part(name, average == mine.end() ? Tensor() : average->second,
                                      wide_dtype(parameter));
      }
      builder.add_tensors("ema.safetensors", std::move(averages));
    }
    builder.add_adapter();
  }
  builder.add_tensors("optimizer.safetensors", optimizer_pieces(state, builder));
  if (state.fp8) {
    Pieces scales;
    for (const auto& [key, tensor] : state.fp8->state())
      scales[key] = builder.everywhere(tensor, tensor.scalar_type());
    if (!scales.empty()) builder.add_tensors("fp8.safetensors", std::move(scales));
  }
  StateFiles files = builder.take();
  for (auto& [path, file] : files) file.head_mine = state.rank == 0;
  return files;
}

}  // namespace cosmos::trainer
