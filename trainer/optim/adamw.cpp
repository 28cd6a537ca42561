#include "trainer/optim/adamw.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <tuple>
#include <unordered_set>

#include "ops/adamw/adamw.h"
#include "trainer/optim/copy_tensors.h"

namespace cosmos::trainer {

NamedTensors trainable_parameters(const torch::nn::Module& module) {
  NamedTensors found;
  std::unordered_set<void*> seen;
  for (const auto& item : module.named_parameters())
    if (item.value().requires_grad() && seen.insert(item.value().unsafeGetTensorImpl()).second)
      found.emplace_back(item.key(), item.value());
  return found;
}

// The value under the longest key that `name` begins with; 1 when there is none.
static double scale_of(const std::map<std::string, double>& scales, const std::string& name) {
  double scale = 1;
  std::size_t longest = 0;
  for (const auto& [prefix, value] : scales)
    if (prefix.size() >= longest && name.rfind(prefix, 0) == 0)
      std::tie(longest, scale) = std::pair(prefix.size(), value);
  return scale;
}

AdamW::AdamW(const NamedTensors& parameters, OptimizerConfig config,
             std::shared_ptr<AwayMemory> away)
    : config_(std::move(config)), away_(std::move(away)) {
  torch::NoGradGuard no_grad;
  require(!parameters.empty(), "optimizer: the model has no trainable parameter");
  for (const auto& [prefix, scale] : config_.lr_scale)
    require(
        std::any_of(parameters.begin(), parameters.end(),
                    [&, &start = prefix](const auto& p) { return p.first.rfind(start, 0) == 0; }),
        "trainer.optimizer.lr_scale.", prefix, ": no trained parameter's name begins with it");
  for (const auto& [name, param] : parameters) {
    const bool narrow =
        param.scalar_type() != torch::kFloat32 && param.scalar_type() != torch::kFloat64;
    const Tensor master = narrow ? param.detach().to(torch::kFloat32).clone() : param;
    slots_.push_back({.name = name,
                      .param = param,
                      .master = master,
                      .exp_avg = zeros_like(master),
                      .exp_avg_sq = zeros_like(master),
                      .exp_avg_scale = {},
                      .exp_avg_sq_scale = {},
                      .step = torch::zeros({}, master.options().dtype(torch::kFloat32)),
                      .decay = param.dim() > 1 || config_.decay_1d,
                      .lr_scale = scale_of(config_.lr_scale, name)});
    if (Slot& slot = slots_.back(); coded()) encode(slot, slot.exp_avg, slot.exp_avg_sq);
  }
}

Tensor AdamW::zeros_like(const Tensor& master) const {
  return away_ ? away_->zeros(master.sizes(), master.scalar_type()) : torch::zeros_like(master);
}

void AdamW::encode(Slot& slot, const Tensor& exp_avg, const Tensor& exp_avg_sq) const {
  const auto put = [&](const Tensor& x) {
    return away_ ? away_->empty(x.sizes(), x.scalar_type()).copy_(x) : x;
  };
  const ops::MomentCodes first = ops::encode_moment(exp_avg, false);
  const ops::MomentCodes second = ops::encode_moment(exp_avg_sq, true);
  slot.exp_avg = put(first.codes);
  slot.exp_avg_sq = put(second.codes);
  slot.exp_avg_scale = put(first.scale);
  slot.exp_avg_sq_scale = put(second.scale);
}

void AdamW::collect_gradients() {
  torch::NoGradGuard no_grad;
  for (Slot& slot : slots_) {
    if (slot.master.is_same(slot.param) || !slot.param.grad().defined()) continue;
    Tensor& sum = slot.master.mutable_grad();
    if (sum.defined()) {
      sum.add_(slot.param.grad());
    } else {
      sum = slot.param.grad().to(torch::kFloat32);
    }
    slot.param.mutable_grad().reset();
  }
}

Tensor AdamW::step(double lr, double clip_norm, const Tensor& loss, const Average& average) {
  torch::NoGradGuard no_grad;
  Tensors grads;
  for (const Slot& slot : slots_)
    if (slot.master.grad().defined()) grads.push_back(slot.master.grad());
  require(!grads.empty(),
          "optimizer: no parameter received a gradient; does the loss depend on the ",
          "model's trainable parameters?");
  Tensor norm = ops::grad_norm(grads);
  if (sum_over_shards_) norm = sum_over_shards_(norm.square()).sqrt();
  // NaN, with which nothing is updated, where the norm or the loss is not finite.
  const double never = std::numeric_limits<float>::max();
  const Tensor clip =
      ops::clip_coefficient(norm, clip_norm > 0 ? clip_norm : never) + 0 * loss.to(norm.device());
  std::set<std::pair<bool, double>> groups;
  for (const Slot& slot : slots_) groups.emplace(slot.decay, slot.lr_scale);
  for (const auto& [decay, scale] : groups) update(decay, scale, lr, clip, average);
  for (Slot& slot : slots_) slot.master.mutable_grad().reset();
  return norm;
}

void AdamW::update(bool decay, double lr_scale, double lr, const Tensor& clip,
                   const Average& average) const {
  ops::AdamWState state;
  for (const Slot& slot : slots_) {
    if (slot.decay != decay || slot.lr_scale != lr_scale || !slot.master.grad().defined()) continue;
    state.params.push_back(slot.param);
    state.grads.push_back(slot.master.grad().contiguous());
    state.exp_avg.push_back(slot.exp_avg);
    state.exp_avg_sq.push_back(slot.exp_avg_sq);
    if (coded()) {
      state.exp_avg_scale.push_back(slot.exp_avg_scale);
      state.exp_avg_sq_scale.push_back(slot.exp_avg_sq_scale);
    }
    state.step.push_back(slot.step);
    state.master.push_back(slot.master);
    if (average.weights) state.ema.push_back(average.weights->at(slot.name));
  }
  ops::adamw_step(state,
                  {.lr = lr * lr_scale,
                   .beta1 = config_.betas[0],
                   .beta2 = config_.betas[1],
                   .eps = config_.eps,
                   .weight_decay = decay ? config_.weight_decay : 0,
                   .ema_decay = average.decay},
                  clip);
}

void AdamW::publish() {
  torch::NoGradGuard no_grad;
  for (Slot& slot : slots_)
    if (!slot.master.is_same(slot.param)) slot.param.copy_(slot.master);
}

int64_t AdamW::moment_bytes() const {
  std::size_t bytes = 0;
  for (const Slot& slot : slots_)
    for (const Tensor* x :
         {&slot.exp_avg, &slot.exp_avg_sq, &slot.exp_avg_scale, &slot.exp_avg_sq_scale})
      bytes += x->defined() ? x->nbytes() : 0;
  return static_cast<int64_t>(bytes);
}

NamedTensors AdamW::masters() const {
  NamedTensors all;
  for (const Slot& slot : slots_) all.emplace_back(slot.name, slot.master);
  return all;
}

TensorMap AdamW::state() const {
  TensorMap all;
  for (const Slot& slot : slots_) {
    all["exp_avg." + slot.name] =
        coded() ? ops::decode_moment({slot.exp_avg, slot.exp_avg_scale}) : slot.exp_avg;
    all["exp_avg_sq." + slot.name] =
        coded() ? ops::decode_moment({slot.exp_avg_sq, slot.exp_avg_sq_scale}) : slot.exp_avg_sq;
    all["step." + slot.name] = slot.step;
    if (!slot.master.is_same(slot.param)) all["master." + slot.name] = slot.master;
  }
  return all;
}

void AdamW::load_state(const TensorMap& state, const std::string& where) {
  const TensorMap mine = this->state();
  copy_tensors(state, mine, where);
  if (coded())
    for (Slot& slot : slots_)
      encode(slot, mine.at("exp_avg." + slot.name), mine.at("exp_avg_sq." + slot.name));
  publish();
}

}  // namespace cosmos::trainer
