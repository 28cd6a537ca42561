#include "modules/vlm/sampling.h"

#include <cmath>
#include <limits>

namespace cosmos::modules {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

Tensor penalize(const Tensor& logits, double penalty, const std::vector<int64_t>& seen) {
  const Tensor tokens = torch::tensor(seen, torch::kInt64);
  const Tensor scores = logits.index_select(0, tokens);
  return logits.index_copy(0, tokens, torch::where(scores < 0, scores * penalty, scores / penalty));
}

Tensor keep_top_k(const Tensor& logits, int64_t k) {
  k = std::min(k, logits.numel());
  const Tensor least = std::get<0>(logits.topk(k)).select(0, k - 1);
  return logits.masked_fill(logits < least, kNever);
}

Tensor keep_top_p(const Tensor& logits, double p) {
  const auto [sorted, order] = logits.sort(/*dim=*/0, /*descending=*/false);
  Tensor remove = sorted.softmax(0).cumsum(0) <= 1 - p;
  remove[-1] = false;  // one is always left
  return logits.masked_fill(torch::zeros_like(remove).index_copy(0, order, remove), kNever);
}

}  // namespace

void SamplingConfig::check(const std::string& where) const {
  require(std::isfinite(temperature) && temperature > 0, where,
          ": temperature: expected a number above 0, got ", temperature,
          " (the likeliest token: do_sample = false)");
  require(top_k >= 0, where, ": top_k: expected 0 or more, got ", top_k);
  require(top_p > 0 && top_p <= 1, where, ": top_p: expected 0 < top_p <= 1, got ", top_p);
  require(std::isfinite(repetition_penalty) && repetition_penalty > 0, where,
          ": repetition_penalty: expected a number above 0, got ", repetition_penalty);
}

Tensor process_logits(Tensor logits, const SamplingConfig& config,
                      const std::vector<int64_t>& seen) {
  logits = logits.to(torch::kCPU, torch::kFloat32);
  if (config.repetition_penalty != 1) logits = penalize(logits, config.repetition_penalty, seen);
  if (!config.do_sample) return logits;
  if (config.temperature != 1) logits = logits / config.temperature;
  if (config.top_k > 0) logits = keep_top_k(logits, config.top_k);
  if (config.top_p < 1) logits = keep_top_p(logits, config.top_p);
  return logits;
}

int64_t choose_token(const Tensor& processed, const SamplingConfig& config, Philox& random) {
  require(!processed.isnan().any().item<bool>(),
          "the model's logits are not numbers: its weights or its input are broken");
  if (!config.do_sample) return processed.argmax().item<int64_t>();
  const Tensor cumulative = processed.to(torch::kFloat64).softmax(0).cumsum(0);
  const double draw = random.uniform() * cumulative[-1].item<double>();
  // The first token whose cumulative probability exceeds the draw; those ruled out add nothing.
  const Tensor place = torch::searchsorted(cumulative, draw, /*out_int32=*/false, /*right=*/true);
  return std::min(place.item<int64_t>(), processed.numel() - 1);
}

}  // namespace cosmos::modules
