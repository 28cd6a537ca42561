// The mathematics of grpo.h: advantages and the clipped policy loss.

#include "trainer/recipes/grpo.h"

namespace cosmos::trainer {
namespace {

// log p - log p_old of each token; of its whole answer (a mean over its tokens) where the ratio is
// the sequence's. The gradient of the latter reaches every token of the answer.
Tensor log_ratio(const GrpoConfig& config, const TokenLogProbs& now, const Tensor& old) {
  const Tensor tokens = (now.values - old).clamp(-20, 20);
  if (config.ratio == "token") return tokens;
  const Tensor means = now.sum(tokens) / now.count().clamp_min(1);
  return means.index_select(0, now.sequence);
}

// One number from the tokens' losses. counts: 1 for tokens that are learned from.
Tensor aggregate(const GrpoConfig& config, const TokenLogProbs& now, const Tensor& token_loss,
                 const Tensor& counts) {
  const Tensor weighted = token_loss * counts;
  if (config.aggregation == "token") return weighted.sum() / counts.sum().clamp_min(1);
  if (config.aggregation == "length")
    return weighted.sum() / static_cast<double>(now.sequences * config.max_new_tokens);
  const Tensor own = now.sum(counts);
  const Tensor means = now.sum(weighted) / own.clamp_min(1);
  return means.sum() / own.gt(0).sum().clamp_min(1);
}

}  // namespace

Tensor group_advantages(const Tensor& rewards, int64_t group, bool scale_by_std) {
  const Tensor r = rewards.view({-1, group});
  Tensor advantage = r - r.mean(1, /*keepdim=*/true);
  if (scale_by_std && group > 1)
    advantage = advantage / (r.std(1, /*unbiased=*/true, /*keepdim=*/true) + 1e-6);
  return advantage.flatten();
}

Tensor policy_loss(const GrpoConfig& config, const TokenLogProbs& now, const Rollout& rollout,
                   std::map<std::string, Tensor>& metrics) {
  const Tensor advantage = rollout.advantage.index_select(0, now.sequence);
  const Tensor counts = rollout.counts.to(now.values.scalar_type()).index_select(0, now.sequence);
  const Tensor ratio = log_ratio(config, now, rollout.old).exp();
  const Tensor clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high);
  Tensor loss = -torch::min(ratio * advantage, clipped * advantage);
  if (config.dual_clip > 0)
    loss = torch::where(advantage < 0, torch::min(loss, -config.dual_clip * advantage), loss);
  const auto mean = [&](const Tensor& x) {
    return (x.detach().to(torch::kFloat32) * counts).sum() / counts.sum().clamp_min(1);
  };
  metrics["clipped"] = mean(ratio.detach().ne(clipped.detach()));
  if (config.kl_beta > 0) {
    const Tensor gap = (rollout.reference - now.values).clamp(-20, 20);
    const Tensor k3 = (gap.exp() - gap - 1).clamp(-10, 10);
    metrics["kl"] = mean(k3);
    loss = loss + config.kl_beta * k3;
  }
  return aggregate(config, now, loss, counts);
}

}  // namespace cosmos::trainer
