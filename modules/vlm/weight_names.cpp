// How files spell the weights of language models, and the registered names they stand for.
//
//   Qwen2.5-VL   files keep the names of the first release: visual.*, model.layers.*, lm_head.*
//   Qwen3-VL     files are as registered; older spellings load too
//   Qwen3-MoE    files have one tensor an expert: mlp.experts.N.{gate,up,down}_proj.weight
//   Qwen3-VL-MoE experts fused, transposed in files of the first release

#include <algorithm>

#include "modules/vlm/language_model.h"

namespace cosmos::modules {
namespace {

constexpr const char* kVisual = "model.visual.";
constexpr const char* kText = "model.language_model.";

// `name` with `prefix` replaced, when it has it.
bool replace_prefix(std::string& name, const std::string& prefix, const std::string& with) {
  if (name.rfind(prefix, 0) != 0) return false;
  name = with + name.substr(prefix.size());
  return true;
}

// Any spelling of a vision-language model's key -> the registered name.
std::string registered_name(std::string key) {
  if (key.rfind(kVisual, 0) == 0 || key.rfind(kText, 0) == 0) return key;
  if (replace_prefix(key, "visual.", kVisual)) return key;
  if (replace_prefix(key, "language_model.", kText)) return key;
  replace_prefix(key, "model.", kText);
  return key;
}

// The tensors under `stem`.N.`leaf` for N = 0, 1, ..., taken out of `tensors`.
Tensors take_experts(TensorMap& tensors, const std::string& stem, const std::string& leaf) {
  Tensors found;
  for (;;) {
    const auto entry = tensors.find(stem + "." + std::to_string(found.size()) + "." + leaf);
    if (entry == tensors.end()) return found;
    found.push_back(entry->second);
    tensors.erase(entry);
  }
}

void fuse_experts(TensorMap& tensors, const std::string& stem) {
  const Tensors gate = take_experts(tensors, stem, "gate_proj.weight");
  const Tensors up = take_experts(tensors, stem, "up_proj.weight");
  const Tensors down = take_experts(tensors, stem, "down_proj.weight");
  if (gate.empty() || gate.size() != up.size() || gate.size() != down.size()) return;
  Tensors gate_up;
  for (std::size_t e = 0; e < gate.size(); ++e) gate_up.push_back(torch::cat({gate[e], up[e]}));
  tensors[stem + ".gate_up_proj"] = torch::stack(gate_up);
  tensors[stem + ".down_proj"] = torch::stack(down);
}

void split_experts(TensorMap& tensors, const std::string& stem) {
  const auto gate_up = tensors.find(stem + ".gate_up_proj");
  const auto down = tensors.find(stem + ".down_proj");
  if (gate_up == tensors.end() || down == tensors.end()) return;
  for (int64_t e = 0; e < gate_up->second.size(0); ++e) {
    const std::string expert = stem + "." + std::to_string(e) + ".";
    const auto halves = gate_up->second[e].chunk(2);
    tensors[expert + "gate_proj.weight"] = halves[0].contiguous();
    tensors[expert + "up_proj.weight"] = halves[1].contiguous();
    tensors[expert + "down_proj.weight"] = down->second[e].contiguous();
  }
  tensors.erase(stem + ".gate_up_proj");
  tensors.erase(stem + ".down_proj");
}

// A fused tensor [E, a, b] that a file keeps as [E, b, a].
void turn(TensorMap& tensors, const std::string& key, int64_t rows, int64_t columns) {
  const auto found = tensors.find(key);
  if (found == tensors.end() || found->second.dim() != 3) return;
  const Tensor& x = found->second;
  if (x.size(1) == columns && x.size(2) == rows && rows != columns)
    found->second = x.transpose(1, 2);
}

}  // namespace

std::string LanguageModel::file_key(const std::string& name) const {
  if (config_.family != LmFamily::kQwen25Vl) return name;
  std::string key = name;
  if (!replace_prefix(key, kVisual, "visual.")) replace_prefix(key, kText, "model.");
  return key;
}

TensorMap LanguageModel::from_file(TensorMap tensors) const {
  if (config_.has_vision()) {
    TensorMap renamed;
    for (auto& [key, tensor] : tensors) {
      const std::string spelled = file_key(registered_name(key));
      require(renamed.emplace(spelled, tensor).second, key,
              ": the checkpoint has it under two spellings");
    }
    tensors = std::move(renamed);
  }
  const TextConfig& text = config_.text;
  for (int64_t i = 0; i < text.num_hidden_layers; ++i) {
    if (!config_.is_sparse(i)) continue;
    const std::string stem = text_prefix_ + "layers." + std::to_string(i) + ".mlp.experts";
    fuse_experts(tensors, stem);
    turn(tensors, stem + ".gate_up_proj", 2 * text.moe_intermediate_size, text.hidden_size);
    turn(tensors, stem + ".down_proj", text.hidden_size, text.moe_intermediate_size);
  }
  return tensors;
}

TensorMap LanguageModel::to_file(TensorMap tensors) const {
  if (config_.family == LmFamily::kQwen3Moe)
    for (int64_t i = 0; i < config_.text.num_hidden_layers; ++i)
      split_experts(tensors, text_prefix_ + "layers." + std::to_string(i) + ".mlp.experts");
  return tensors;
}

}  // namespace cosmos::modules
