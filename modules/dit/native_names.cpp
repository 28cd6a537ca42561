#include "modules/dit/native_names.h"

#include <cmath>

#include "modules/hub/atomic_file.h"

namespace cosmos::modules {
namespace {

// Rotary scales of the released models (frames, rows, columns), by what tells them apart.
std::vector<double> released_rope_scale(const DitConfig& c) {
  const bool large = c.hidden_size() >= 5120;
  if (c.has_learnable_positions())
    return large ? std::vector<double>{2, 2, 2} : std::vector<double>{2, 1, 1};
  if (c.use_crossattn_projection) return {1, 3, 3};  // 2.5
  if (c.in_channels == 16) return {1, 4, 4};         // text to image
  if (large) return {20.0 / 24.0, 2, 2};
  return {1, 3, 3};
}

const LazyTensor& tensor(const LazyTensors& tensors, const std::string& name, std::size_t rank,
                         const std::string& where) {
  const auto found = tensors.find(name);
  require(found != tensors.end(), where, ": ", name, " is missing; not a whole transformer");
  require(found->second.shape.size() == rank, where, ": ", name, ": expected ", rank,
          " dimensions, got ", c10::IntArrayRef(found->second.shape));
  return found->second;
}

int64_t count_blocks(const LazyTensors& tensors) {
  int64_t count = 0;
  while (tensors.count("transformer_blocks." + std::to_string(count) + ".attn1.to_q.weight"))
    ++count;
  return count;
}

int64_t divided(int64_t a, int64_t b, const std::string& where, const char* what) {
  require(b > 0 && a % b == 0, where, ": ", what, ": ", a, " is no multiple of ", b);
  return a / b;
}

NameMap predict1_attention() {
  NameMap names;
  for (const std::string part : {"q", "k"}) {
    names.add("to_" + part + ".0.weight", "to_" + part + ".weight");
    names.add("to_" + part + ".1.weight", "norm_" + part + ".weight");
  }
  names.add("to_v.0.weight", "to_v.weight");
  names.add("to_out.0.weight", "to_out.0.weight");
  return names;
}

NameMap predict1_block() {
  NameMap names;
  for (int i = 0; i < 3; ++i)
    for (const char* layer : {"1", "2"})
      names.add("blocks." + std::to_string(i) + ".adaLN_modulation." + layer + ".weight",
                "norm" + std::to_string(i + 1) + ".linear_" + layer + ".weight");
  names.add("blocks.0.block.attn", "attn1", predict1_attention());
  names.add("blocks.1.block.attn", "attn2", predict1_attention());
  names.add("blocks.2.block.layer1.weight", "ff.net.0.proj.weight");
  names.add("blocks.2.block.layer2.weight", "ff.net.2.weight");
  return names;
}

}  // namespace

NameMap dit_block_names(DitGeneration generation) {
  if (generation == DitGeneration::kPredict1) return predict1_block();
  NameMap names;
  int norm = 1;
  for (const std::string part : {"self_attn", "cross_attn", "mlp"}) {
    for (const char* layer : {"1", "2"})
      names.add("adaln_modulation_" + part + "." + layer + ".weight",
                "norm" + std::to_string(norm) + ".linear_" + layer + ".weight");
    ++norm;
  }
  NameMap attention;
  for (const std::string part : {"q", "k", "v"})
    attention.add(part + "_proj.weight", "to_" + part + ".weight");
  for (const std::string part : {"q", "k"})
    attention.add(part + "_norm.weight", "norm_" + part + ".weight");
  attention.add("output_proj.weight", "to_out.0.weight");
  names.add("self_attn", "attn1", attention);
  for (const std::string image : {"q_img", "k_img", "v_img", "q_img_norm", "k_img_norm"})
    attention.add(image + ".weight", image + ".weight");
  names.add("cross_attn", "attn2", attention);
  names.add("mlp.layer1.weight", "ff.net.0.proj.weight");
  names.add("mlp.layer2.weight", "ff.net.2.weight");
  return names;
}

namespace {

NameMap stem_names(const char* time_norm) {
  NameMap names;
  names.add("x_embedder.proj.1.weight", "patch_embed.proj.weight");
  for (const std::string axis : {"t", "h", "w"})
    names.add("extra_pos_embedder.pos_emb_" + axis, "learnable_pos_embed.pos_emb_" + axis);
  for (const std::string layer : {"linear_1", "linear_2"})
    names.add("t_embedder.1." + layer + ".weight", "time_embed.t_embedder." + layer + ".weight");
  names.add(time_norm, "time_embed.norm.weight");
  return names;
}

}  // namespace

NameMap predict1_stem_names() {
  return stem_names("affline_norm.weight");
}

NameMap dit_native_names(DitGeneration generation) {
  const bool first = generation == DitGeneration::kPredict1;
  NameMap names = first ? predict1_stem_names() : stem_names("t_embedding_norm.weight");
  names.add(first ? "blocks.block*" : "blocks.*", "transformer_blocks.*",
            dit_block_names(generation));
  const std::string modulation =
      first ? "final_layer.adaLN_modulation." : "final_layer.adaln_modulation.";
  for (const std::string layer : {"1", "2"})
    names.add(modulation + layer + ".weight", "norm_out.linear_" + layer + ".weight");
  names.add("final_layer.linear.weight", "proj_out.weight");
  names.add_layer("crossattn_proj.0", "crossattn_proj.0");
  names.add_layer("img_context_proj.0", "img_context_proj.0");
  names.add("view_embeddings.weight", "view_embeddings.weight");
  for (const std::string embedder : {"action_embedder_B_D.", "action_embedder_B_3D."})
    for (const std::string layer : {"fc1", "fc2"})
      names.add_layer(embedder + layer, embedder + layer);
  return names;
}

std::string dit_superfluous(const std::string& native) {
  const auto starts = [&](const char* prefix) { return native.rfind(prefix, 0) == 0; };
  if (starts("pos_embedder.") || starts("pos_embedder_options."))
    return "constant of the rotary embedding, computed";
  if (starts("accum_")) return "counter of the training that made the file";
  if (starts("logvar.")) return "weighs the training loss only";
  const std::string state = "_extra_state";
  if (native.size() >= state.size() &&
      native.compare(native.size() - state.size(), state.size(), state) == 0)
    return "state of TransformerEngine, holds no weight";
  return "";
}

TensorMap dit_native_buffers(const DitConfig& c, int64_t cameras) {
  const int64_t space = c.attention_head_dim / 6 * 2, time = c.attention_head_dim - 2 * space;
  const auto range = [](int64_t dim) {
    return torch::arange(0, dim, 2).slice(0, 0, dim / 2).to(torch::kFloat32) / dim;
  };
  const int64_t longest = std::max({c.max_size[0], c.max_size[1], c.max_size[2]});
  TensorMap buffers;
  const auto add = [&](const std::string& embedder) {
    buffers[embedder + ".seq"] = torch::arange(longest, torch::kFloat32);
    buffers[embedder + ".dim_spatial_range"] = range(space);
    buffers[embedder + ".dim_temporal_range"] = range(time);
  };
  if (cameras == 0) add("pos_embedder");
  for (int64_t k = 1; k <= cameras; ++k) add("pos_embedder_options.n_cameras_" + std::to_string(k));
  return buffers;
}

DitConfig dit_config_of(const LazyTensors& tensors, const std::string& where) {
  DitConfig c;
  const auto shape = [&](const std::string& name) -> const std::vector<int64_t>& {
    return tensor(tensors, name, 2, where).shape;
  };
  const std::string block = "transformer_blocks.0.";
  const int64_t width = shape("patch_embed.proj.weight")[0];
  const int64_t patch = c.patch_size[0] * c.patch_size[1] * c.patch_size[2];
  c.in_channels =
      divided(shape("patch_embed.proj.weight")[1], patch, where, "patch_embed's inputs") - 1;
  c.out_channels = divided(shape("proj_out.weight")[0], patch, where, "proj_out's outputs");
  c.attention_head_dim = tensor(tensors, block + "attn1.norm_q.weight", 1, where).shape[0];
  c.num_attention_heads = divided(width, c.attention_head_dim, where, "the width of the model");
  c.num_layers = count_blocks(tensors);
  c.mlp_ratio =
      static_cast<double>(shape(block + "ff.net.0.proj.weight")[0]) / static_cast<double>(width);
  c.text_embed_dim = shape(block + "attn2.to_k.weight")[1];
  c.adaln_lora_dim = shape(block + "norm1.linear_1.weight")[0];
  c.extra_pos_embed_type.reset();
  if (tensors.count("learnable_pos_embed.pos_emb_t")) {
    c.extra_pos_embed_type = "learnable";
    const char* axes[] = {"t", "h", "w"};
    for (std::size_t i = 0; i < 3; ++i)
      c.max_size[i] =
          c.patch_size[i] * shape(std::string("learnable_pos_embed.pos_emb_") + axes[i])[0];
  }
  if (tensors.count("crossattn_proj.0.weight")) {
    c.use_crossattn_projection = true;
    c.crossattn_proj_in_channels = shape("crossattn_proj.0.weight")[1];
    c.encoder_hidden_states_channels = shape("crossattn_proj.0.weight")[0];
  }
  if (tensors.count("img_context_proj.0.weight")) {
    c.img_context_dim_in = shape("img_context_proj.0.weight")[1];
    c.img_context_dim_out = shape("img_context_proj.0.weight")[0];
  }
  c.rope_scale = released_rope_scale(c);
  c.check(where);
  return c;
}

}  // namespace cosmos::modules
