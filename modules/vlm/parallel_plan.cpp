// How tensor parallelism splits the language models: attention by key-value heads, MLPs by hidden
// features, the head by classes. The vision tower, routers and experts are computed by every rank
// (experts are split by expert parallelism).

#include "modules/vlm/language_model.h"

namespace cosmos::modules {

ParallelPlan LanguageModel::parallel_plan() const {
  ParallelPlan plan;
  const auto add = [&plan](const std::string& name, Split split, int64_t unit) {
    plan.push_back({.name = name, .split = split, .unit = unit});
  };
  const int64_t head = config_.text.head_size();
  for (int64_t i = 0; i < config_.text.num_hidden_layers; ++i) {
    const std::string layer = text_prefix_ + "layers." + std::to_string(i) + ".";
    for (const char* name : {"q_proj", "k_proj", "v_proj"})
      add(layer + "self_attn." + name, Split::kColumn, head);
    add(layer + "self_attn.o_proj", Split::kRow, head);
    if (config_.is_sparse(i)) continue;
    for (const char* name : {"gate_proj", "up_proj"}) add(layer + "mlp." + name, Split::kColumn, 1);
    add(layer + "mlp.down_proj", Split::kRow, 1);
  }
  // A tied head is the embedding, which every rank has whole.
  if (!config_.text.tie_word_embeddings)
    plan.push_back({.name = "lm_head",
                    .split = Split::kColumn,
                    .unit = 1,
                    .tokens = false,
                    .whole_output = true});
  return plan;
}

}  // namespace cosmos::modules
