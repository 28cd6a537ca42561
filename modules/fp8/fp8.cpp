#include "modules/fp8/fp8.h"

#include <algorithm>
#include <cctype>

#include "modules/lora/config.h"

namespace cosmos::modules {
namespace {

constexpr int64_t kWeight = 1;      ///< its place in the state of delayed scaling
constexpr int64_t kTileWidth = 16;  ///< what at::_scaled_mm asks of a matrix's sides

ops::Fp8Recipe recipe_of(const Fp8Config& config) {
  return {.scaling = config.scaling == "block" ? ops::Fp8Scaling::kBlock : ops::Fp8Scaling::kTensor,
          .gradient = config.gradient == "e4m3" ? at::kFloat8_e4m3fn : at::kFloat8_e5m2,
          .power_of_two = config.power_of_two};
}

/// Whether the path goes through a numbered block: transformer_blocks.3.attn1.to_q.
bool in_block(const std::string& name) {
  std::size_t begin = 0;
  for (std::size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', begin)) {
    const bool digits =
        dot > begin && std::all_of(name.begin() + static_cast<std::ptrdiff_t>(begin),
                                   name.begin() + static_cast<std::ptrdiff_t>(dot),
                                   [](unsigned char c) { return std::isdigit(c) != 0; });
    if (digits) return true;
    begin = dot + 1;
  }
  return false;
}

bool matches_any(const std::vector<std::string>& list, const std::string& name) {
  return std::any_of(list.begin(), list.end(),
                     [&](const std::string& entry) { return matches_name(entry, name); });
}

bool fits(const LinearImpl& linear) {
  return linear.in_features() % kTileWidth == 0 && linear.out_features() % kTileWidth == 0;
}

}  // namespace

/// What the products of all layers read.
struct Fp8Layers::Shared {
  ops::Fp8Recipe recipe;
  ops::Fp8Delayed delayed = {};
  bool scaled = false;                        ///< whether the scales come from a history
  std::vector<ops::Fp8Weight> gathered = {};  ///< by layer; values undefined: the Linear has it
};

class Fp8Layers::Product : public LinearProduct {
 public:
  Product(std::shared_ptr<const Shared> shared, int64_t layer)
      : shared_(std::move(shared)), layer_(layer) {}

  Tensor operator()(const Tensor& x, const Tensor& weight, const Tensor& bias) const override {
    const auto b = bias.defined() ? std::optional<Tensor>(bias) : std::nullopt;
    return ops::fp8_linear(x, weight, b, shared_->recipe, delayed(),
                           shared_->gathered[static_cast<std::size_t>(layer_)]);
  }

 private:
  ops::Fp8Delayed delayed() const {
    if (!shared_->delayed.amax_history.defined()) return {};
    const Tensor scale = shared_->scaled ? shared_->delayed.scale[layer_] : Tensor();
    const Tensor history = shared_->delayed.amax_history[layer_];
    // Passes that nothing is learned from leave no trace in the history.
    return {scale, torch::GradMode::is_enabled() ? history : history.clone()};
  }

  std::shared_ptr<const Shared> shared_;
  int64_t layer_;
};

Fp8Layers::Fp8Layers(std::vector<NamedLinear> linears, const Fp8Config& config)
    : linears_(std::move(linears)), shared_(std::make_shared<Shared>()) {
  shared_->recipe = recipe_of(config);
  const auto layers = static_cast<int64_t>(linears_.size());
  shared_->gathered.resize(linears_.size());
  if (config.scaling == "delayed")
    shared_->delayed = ops::fp8_delayed(linears_.front().linear->weight, layers, config.history);
  for (int64_t i = 0; i < layers; ++i)
    linears_[static_cast<std::size_t>(i)].linear->set_product_rule(
        std::make_shared<const Product>(shared_, i));
}

void Fp8Layers::advance(const std::function<void(const Tensor&)>& max_over_ranks) {
  if (!shared_->delayed.amax_history.defined()) return;
  const Tensor newest = shared_->delayed.amax_history.select(-1, 0);
  if (max_over_ranks) {
    const Tensor whole = newest.contiguous();
    max_over_ranks(whole);
    newest.copy_(whole);
  }
  ops::fp8_delayed_advance(shared_->delayed, shared_->recipe);
  shared_->scaled = true;
}

ops::Fp8Options Fp8Layers::weight_options() const {
  return {.dtype = at::kFloat8_e4m3fn,
          .granularity = shared_->recipe.scaling == ops::Fp8Scaling::kBlock
                             ? ops::Fp8Granularity::k128x128
                             : ops::Fp8Granularity::kTensor,
          .power_of_two = shared_->recipe.power_of_two};
}

Tensor Fp8Layers::weight_scale(int64_t layer) const {
  return shared_->scaled ? shared_->delayed.scale[layer][kWeight] : Tensor();
}

void Fp8Layers::record_weight(int64_t layer, const Tensor& amax) {
  if (!shared_->delayed.amax_history.defined()) return;
  const Tensor newest = shared_->delayed.amax_history[layer][kWeight][0];
  newest.copy_(torch::maximum(newest, amax));
}

void Fp8Layers::set_gathered(int64_t layer, ops::Fp8Weight weight) {
  shared_->gathered.at(static_cast<std::size_t>(layer)) = std::move(weight);
}

TensorMap Fp8Layers::state() const {
  if (!shared_->delayed.amax_history.defined()) return {};
  return {{"scale", shared_->delayed.scale}, {"amax_history", shared_->delayed.amax_history}};
}

void Fp8Layers::state_was_loaded() {
  if (shared_->delayed.amax_history.defined())
    shared_->scaled = (shared_->delayed.amax_history > 0).any().item<bool>();
}

std::vector<NamedLinear> fp8_linears(const Model& model, const Fp8Config& config) {
  const std::vector<NamedLinear> all = named_linears(model);
  std::vector<std::string> names;
  for (const NamedLinear& layer : all) names.push_back(layer.name);
  require_matches(config.target_modules, names, "fp8.target_modules", "linear layer");
  std::vector<NamedLinear> chosen;
  for (const NamedLinear& layer : all) {
    const bool wanted = config.target_modules.empty()
                            ? in_block(layer.name)
                            : matches_any(config.target_modules, layer.name);
    if (wanted && !matches_any(config.exclude_modules, layer.name) && fits(*layer.linear))
      chosen.push_back(layer);
  }
  require(!chosen.empty(), "fp8: of the ", all.size(), " linear layers of ", model.class_name(),
          " none is targeted with sides that ", kTileWidth,
          " divides; name others in fp8.target_modules");
  return chosen;
}

std::unique_ptr<Fp8Layers> apply_fp8(const Model& model, const Fp8Config& config) {
  return std::make_unique<Fp8Layers>(fp8_linears(model, config), config);
}

}  // namespace cosmos::modules
