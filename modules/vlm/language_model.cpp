#include "modules/vlm/language_model.h"

#include <algorithm>

#include "modules/core/init.h"
#include "modules/vlm/generate.h"
#include "modules/vlm/kv_cache.h"

namespace cosmos::modules {
namespace {

Tensor types_of(const LanguageModelInputs& inputs, const LanguageModelConfig& config) {
  return inputs.mm_token_type_ids.defined() ? inputs.mm_token_type_ids.to(torch::kInt64)
                                            : token_types(config, inputs.input_ids);
}

// Places of tokens of `type` in the flattened batch, in order.
Tensor rows_of(const Tensor& types, TokenType type) {
  return types.flatten().eq(type).nonzero().squeeze(1);
}

// y + features at the places `rows` of the flattened batch of shape `sizes`, of which y is this
// rank's tokens.
Tensor add_visual(const Tensor& y, const Tensor& features, const Tensor& rows,
                  at::IntArrayRef sizes, const TokenPlan& tokens) {
  if (y.sizes() == sizes) return y.flatten(0, 1).index_add(0, rows, features).view(sizes);
  const Tensor all = torch::zeros({sizes[0] * sizes[1], sizes[2]}, y.options());
  return y + tokens.scatter(all.index_copy(0, rows, features).view(sizes), 1);
}

std::vector<int64_t> to_vector(const Tensor& x) {
  const Tensor host = x.to(torch::kCPU, torch::kInt64).contiguous();
  return {host.data_ptr<int64_t>(), host.data_ptr<int64_t>() + host.numel()};
}

}  // namespace

Tensor token_types(const LanguageModelConfig& config, const Tensor& input_ids) {
  if (!config.has_vision()) return torch::zeros_like(input_ids);
  return input_ids.eq(config.image_token_id).to(torch::kInt64) * kImageToken +
         input_ids.eq(config.video_token_id).to(torch::kInt64) * kVideoToken;
}

LanguageModel::LanguageModel(LanguageModelConfig config)
    : config_(std::move(config)), rope_(config_.rope()) {
  const TextConfig& text = config_.text;
  auto model = add_container(*this, "model");
  auto language = model;
  text_prefix_ = "model.";
  if (config_.has_vision()) {
    visual_ = std::make_shared<VisionTower>(*add_container(*model, "visual"), config_.vision,
                                            config_.family);
    language = add_container(*model, "language_model");
    text_prefix_ = "model.language_model.";
  }
  embed_tokens_ = language->register_module(
      "embed_tokens", Embedding(text.vocab_size, text.hidden_size, text.pad_token_id));
  auto layers = add_container(*language, "layers");
  for (int64_t i = 0; i < text.num_hidden_layers; ++i)
    layers_.push_back(layers->register_module(std::to_string(i), DecoderLayer(config_, i)));
  norm_ = language->register_module("norm", RmsNorm(text.hidden_size, text.rms_norm_eps));
  lm_head_ =
      register_module("lm_head", text.tie_word_embeddings
                                     ? Linear(embed_tokens_->weight)
                                     : Linear(text.hidden_size, text.vocab_size, /*bias=*/false));
  if (!SkipInit::active()) initialise();
}

void LanguageModel::initialise() {
  torch::NoGradGuard no_grad;
  for (auto& item : named_parameters()) {
    Tensor weight = item.value();
    const bool bias = item.key().ends_with("bias");
    if (bias) {
      weight.zero_();
    } else if (weight.dim() > 1) {
      weight.normal_(0, config_.text.initializer_range);
    }
  }
  if (const auto pad = config_.text.pad_token_id) embed_tokens_->weight[*pad].zero_();
}

std::vector<std::string> LanguageModel::block_order() const {
  if (visual_) return {};
  std::vector<std::string> order = {text_prefix_ + "embed_tokens"};
  for (std::size_t i = 0; i < layers_.size(); ++i)
    order.push_back(text_prefix_ + "layers." + std::to_string(i));
  order.insert(order.end(), {text_prefix_ + "norm", "lm_head"});
  return order;
}

RunBlock LanguageModel::block_runner() {
  return [this](const std::string& name, torch::nn::Module& block, const Tensors& inputs,
                const BlockFn& fn) { return run_block(name, block, inputs, fn); };
}

PositionGrids LanguageModel::position_grids(const LanguageModelInputs& inputs) const {
  PositionGrids grids;
  const int64_t merge = config_.vision.spatial_merge_size;
  if (inputs.image_grid_thw.defined())
    grids.images = read_grids(inputs.image_grid_thw, "image_grid_thw", merge);
  if (!inputs.video_grid_thw.defined()) return grids;
  grids.videos = read_grids(inputs.video_grid_thw, "video_grid_thw", merge);
  if (config_.family != LmFamily::kQwen25Vl) {
    grids.videos = split_frames(grids.videos);
    return grids;
  }
  const auto rate = static_cast<double>(config_.vision.tokens_per_second);
  grids.video_interval.assign(grids.videos.size(), rate);
  if (!inputs.second_per_grid_ts.defined()) return grids;
  const Tensor seconds = inputs.second_per_grid_ts.to(torch::kCPU, torch::kFloat64).flatten();
  require(seconds.numel() == static_cast<int64_t>(grids.videos.size()),
          "second_per_grid_ts: expected one number for each of ", grids.videos.size(),
          " videos, got ", seconds.numel());
  for (std::size_t i = 0; i < grids.videos.size(); ++i)
    grids.video_interval[i] = rate * seconds[static_cast<int64_t>(i)].item<double>();
  return grids;
}

Tensor LanguageModel::positions(const LanguageModelInputs& inputs) const {
  const Tensor& ids = inputs.input_ids;
  if (!inputs.image_grid_thw.defined() && !inputs.video_grid_thw.defined()) {
    const Tensor text = torch::arange(ids.size(1), torch::TensorOptions(torch::kInt64));
    return text.expand({3, ids.size(0), ids.size(1)}).to(ids.device());
  }
  PositionGrids grids = position_grids(inputs);
  const Tensor types = types_of(inputs, config_).cpu();
  const Tensor mask =
      inputs.attention_mask.defined() ? inputs.attention_mask.ne(0).cpu() : Tensor();
  Tensor all = torch::zeros({3, ids.size(0), ids.size(1)}, torch::kInt64);
  for (int64_t row = 0; row < ids.size(0); ++row) {
    const Tensor kept =
        mask.defined() ? mask[row].nonzero().squeeze(1) : torch::arange(ids.size(1), torch::kInt64);
    const Tensor placed = sequence_positions(to_vector(types[row].index_select(0, kept)),
                                             config_.vision.spatial_merge_size, grids);
    all.select(1, row).index_copy_(1, kept, placed);
  }
  return all.to(ids.device());
}

Tensor LanguageModel::embed(const LanguageModelInputs& inputs, bool see, Tensor& visual_rows,
                            Tensors& deepstack) {
  Tensor x = run_block(text_prefix_ + "embed_tokens", *embed_tokens_.ptr(), {},
                       [this, ids = inputs.input_ids](const Tensors&) -> Tensors {
                         return {embed_tokens_(ids)};
                       })[0];
  if (!inputs.pixel_values.defined() && !inputs.pixel_values_videos.defined())
    return see ? see_nothing(x) : x;

  // Images and videos go through the tower together, images first.
  const int64_t merge = config_.vision.spatial_merge_size;
  Grids grids;
  Tensors pixels, rows;
  const Tensor types = types_of(inputs, config_);
  const auto add = [&](const Tensor& values, const Tensor& grid_thw, TokenType type,
                       const char* name) {
    if (!values.defined()) return;
    const Grids own = read_grids(grid_thw, name, merge);
    const Tensor places = rows_of(types, type);
    require(places.numel() == patches(own) / config_.vision.merge_unit(), name, ": grids give ",
            patches(own) / config_.vision.merge_unit(), " tokens, input_ids has ", places.numel(),
            " of them");
    grids.insert(grids.end(), own.begin(), own.end());
    pixels.push_back(values.to(x.scalar_type()));
    rows.push_back(places);
  };
  add(inputs.pixel_values, inputs.image_grid_thw, kImageToken, "image_grid_thw");
  add(inputs.pixel_values_videos, inputs.video_grid_thw, kVideoToken, "video_grid_thw");
  const VisionFeatures features =
      visual_->forward(pixels.size() == 1 ? pixels[0] : torch::cat(pixels), grids, block_runner());
  visual_rows = rows.size() == 1 ? rows[0] : torch::cat(rows);
  deepstack = features.deepstack;
  return x.flatten(0, 1).index_copy(0, visual_rows, features.tokens).view(x.sizes());
}

// Runs the tower on one black token and adds nothing of it, so that its blocks have run.
Tensor LanguageModel::vision_tokens(const Tensor& pixels, const Grids& grids) {
  require(has_vision(), class_name(), " has no vision tower");
  return visual_->forward(pixels, grids, block_runner()).tokens;
}

Tensor LanguageModel::see_nothing(const Tensor& x) {
  const int64_t merge = config_.vision.spatial_merge_size;
  const Tensor black =
      torch::zeros({config_.vision.merge_unit(), config_.vision.patch_features()}, x.options());
  const VisionFeatures features = visual_->forward(black, {{1, merge, merge}}, block_runner());
  Tensor nothing = features.tokens.sum() * 0;
  for (const Tensor& layer : features.deepstack) nothing = nothing + layer.sum() * 0;
  return x + nothing;
}

Tensor LanguageModel::run_layers(Tensor x, const SequencePlan& plan, const Tensor& visual_rows,
                                 const Tensors& deepstack, Tensors* states) {
  const std::vector<int64_t> sizes = x.sizes().vec();  // of all tokens
  x = tokens()->scatter(x, 1);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    if (states) states->push_back(tokens()->gather(x, 1));
    Tensors inputs = {x};
    if (i < deepstack.size()) inputs.push_back(deepstack[i]);
    x = run_block(text_prefix_ + "layers." + std::to_string(i), *layers_[i].ptr(), inputs,
                  [layer = layers_[i], plan, visual_rows, sizes,
                   tokens = tokens()](const Tensors& in) mutable -> Tensors {
                    const Tensor y = layer(in[0], plan);
                    if (in.size() == 1) return {y};
                    return {add_visual(y, in[1], visual_rows, sizes, *tokens)};
                  })[0];
  }
  x = run_block(text_prefix_ + "norm", *norm_.ptr(), {x},
                [this](const Tensors& in) -> Tensors { return {norm_(in[0])}; })[0];
  x = tokens()->gather(x, 1);
  if (states) states->push_back(x);
  return x;
}

Tensor LanguageModel::forward(const LanguageModelInputs& inputs, KvCache* cache, Tensors* states) {
  check(inputs);
  Tensor position_ids = inputs.position_ids.defined() ? inputs.position_ids : positions(inputs);
  if (position_ids.dim() == 2) position_ids = position_ids.expand({3, -1, -1});
  position_ids = position_ids.narrow(0, position_ids.size(0) - 3, 3);
  Tensor visual_rows;
  Tensors deepstack;
  const bool see = visual_ && always_sees_ && !cache;
  const Tensor x = embed(inputs, see, visual_rows, deepstack);
  const SequencePlan plan{.rope = text_rope(rope_, config_.text.head_size(), position_ids),
                          .mask = causal_padding_mask(inputs.attention_mask),
                          .offsets = inputs.offsets,
                          .cache = cache};
  const Tensor hidden = run_layers(x, plan, visual_rows, deepstack, states);
  if (cache) cache->advance(inputs.offsets);
  return hidden;
}

Tensor LanguageModel::logits(const Tensor& hidden) {
  return run_block("lm_head", *lm_head_.ptr(), {hidden},
                   [this](const Tensors& in) -> Tensors { return {lm_head_(in[0])}; })[0];
}

Tensor LanguageModel::run_head(const Tensor& hidden, const HeadFn& fn) {
  return run_block("lm_head", *lm_head_.ptr(), {hidden},
                   [this, fn](const Tensors& in) -> Tensors { return {fn(in[0], lm_head_)}; })[0];
}

TensorMap LanguageModel::run(const std::string& method, const TensorMap& inputs) {
  if (method == "generate") return run_generate(*this, inputs);
  require(method == "forward", class_name(), " has no method ", method,
          ": expected forward or generate");
  return {{"logits", logits(forward(language_model_inputs(inputs, class_name())))}};
}

}  // namespace cosmos::modules
