#include "trainer/optim/adamw.h"

#include <unordered_set>

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

AdamW::AdamW(const NamedTensors& parameters, OptimizerConfig config) : config_(std::move(config)) {
  torch::NoGradGuard no_grad;
  require(!parameters.empty(), "optimizer: the model has no trainable parameter");
  for (const auto& [name, param] : parameters) {
    const bool is_float32 = param.scalar_type() == torch::kFloat32;
    const Tensor master = is_float32 ? param : param.detach().to(torch::kFloat32).clone();
    slots_.push_back({.name = name,
                      .param = param,
                      .master = master,
                      .exp_avg = torch::zeros_like(master),
                      .exp_avg_sq = torch::zeros_like(master),
                      .step = torch::zeros({}, master.options()),
                      .decay = param.dim() > 1 || config_.decay_1d});
  }
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

Tensor AdamW::step(double lr, double clip_norm, const Tensor& loss) {
  torch::NoGradGuard no_grad;
  std::vector<const Slot*> decayed, plain;
  Tensors grads;
  for (const Slot& slot : slots_) {
    if (!slot.master.grad().defined()) continue;
    (slot.decay ? decayed : plain).push_back(&slot);
    grads.push_back(slot.master.grad());
  }
  require(!grads.empty(),
          "optimizer: no parameter received a gradient; does the loss depend on the ",
          "model's trainable parameters?");
  const Tensor norm = torch::stack(at::_foreach_norm(grads, 2)).norm();
  // The update divides gradients by `scale` and is skipped where `skip` is 1, both on the device.
  const Tensor scale = clip_norm > 0 ? (norm / clip_norm).clamp_min(1.0) : torch::ones_like(norm);
  const Tensor skip = torch::isfinite(norm + loss).logical_not().to(torch::kFloat32);
  update(decayed, lr, config_.weight_decay, scale, skip);
  update(plain, lr, 0, scale, skip);
  publish();
  for (Slot& slot : slots_) slot.master.mutable_grad().reset();
  return norm;
}

void AdamW::update(const std::vector<const Slot*>& slots, double lr, double weight_decay,
                   const Tensor& scale, const Tensor& skip) const {
  if (slots.empty()) return;
  Tensors masters, grads, exp_avgs, exp_avg_sqs, steps;
  for (const Slot* slot : slots) {
    masters.push_back(slot->master);
    grads.push_back(slot->master.grad());
    exp_avgs.push_back(slot->exp_avg);
    exp_avg_sqs.push_back(slot->exp_avg_sq);
    steps.push_back(slot->step);
  }
  at::_foreach_add_(steps, 1);
  at::_fused_adamw_(masters, grads, exp_avgs, exp_avg_sqs, {}, steps, lr, config_.betas[0],
                    config_.betas[1], weight_decay, config_.eps, /*amsgrad=*/false,
                    /*maximize=*/false, scale, skip);
  at::_foreach_sub_(steps, Tensors(steps.size(), skip));
}

void AdamW::publish() {
  torch::NoGradGuard no_grad;
  for (Slot& slot : slots_)
    if (!slot.master.is_same(slot.param)) slot.param.copy_(slot.master);
}

NamedTensors AdamW::masters() const {
  NamedTensors all;
  for (const Slot& slot : slots_) all.emplace_back(slot.name, slot.master);
  return all;
}

TensorMap AdamW::state() const {
  TensorMap all;
  for (const Slot& slot : slots_) {
    all["exp_avg." + slot.name] = slot.exp_avg;
    all["exp_avg_sq." + slot.name] = slot.exp_avg_sq;
    all["step." + slot.name] = slot.step;
    if (!slot.master.is_same(slot.param)) all["master." + slot.name] = slot.master;
  }
  return all;
}

void AdamW::load_state(const TensorMap& state, const std::string& where) {
  copy_tensors(state, this->state(), where);
  publish();
}

}  // namespace cosmos::trainer
