#include "modules/diffusion/conditioning.h"

#include <numeric>

namespace cosmos::modules {

int64_t draw_condition_frames(const std::vector<double>& probabilities, double random) {
  const double sum = std::accumulate(probabilities.begin(), probabilities.end(), 0.0);
  require(sum > 0, "condition frames: the probabilities must have a positive sum");
  double cumulative = 0;
  int64_t last = 0;
  for (std::size_t k = 0; k < probabilities.size(); ++k) {
    require(probabilities[k] >= 0, "condition frames: negative probability ", probabilities[k]);
    if (probabilities[k] == 0) continue;
    last = static_cast<int64_t>(k);
    cumulative += probabilities[k] / sum;
    if (random < cumulative) break;
  }
  return last;
}

Tensor condition_indicator(const std::vector<int64_t>& frames, int64_t latent_frames) {
  const auto batch = static_cast<int64_t>(frames.size());
  Tensor indicator = torch::zeros({batch, 1, latent_frames, 1, 1});
  for (int64_t b = 0; b < batch; ++b) {
    require(frames[b] >= 0 && frames[b] <= latent_frames, "condition frames: ", frames[b],
            " given frames do not fit a clip of ", latent_frames, " latent frames");
    indicator[b].narrow(1, 0, frames[b]).fill_(1);
  }
  return indicator;
}

Tensor condition_mask(const Tensor& indicator, int64_t height, int64_t width) {
  return indicator.expand({indicator.size(0), 1, indicator.size(2), height, width});
}

Tensor place_frames(const Tensor& indicator, const Tensor& given, const Tensor& otherwise) {
  return torch::where(indicator.to(otherwise.device()) > 0.5, given, otherwise);
}

Tensor frame_levels(const Tensor& indicator, const Tensor& given, const Tensor& sigma) {
  return torch::where(indicator.flatten(1) > 0.5, given.unsqueeze(1), sigma.unsqueeze(1));
}

Tensor frame_timestep(const Tensor& indicator, const Tensor& time, double condition_time) {
  if (condition_time < 0) return time;
  const Tensor clip = time.view({-1, 1, 1, 1, 1}).expand_as(indicator);
  return torch::where(indicator > 0.5, torch::full_like(clip, condition_time), clip);
}

Tensor drop_text(const Tensor& text, const std::vector<bool>& drop) {
  require(text.size(0) == static_cast<int64_t>(drop.size()), "text dropout: batch of ",
          text.size(0), " embeddings, ", drop.size(), " decisions");
  Tensor keep = torch::ones({text.size(0), 1, 1}, text.options());
  for (std::size_t b = 0; b < drop.size(); ++b)
    if (drop[b]) keep[static_cast<int64_t>(b)].zero_();
  return text * keep;
}

Tensor frame_weights(const Tensor& indicator, LossFrames frames) {
  const Tensor generated = 1 - indicator.flatten(1).to(torch::kFloat64);
  if (frames == LossFrames::kAll) return generated / static_cast<double>(generated.size(1));
  return generated / generated.sum(1, /*keepdim=*/true).clamp_min(1);  // 0 if every frame is given
}

}  // namespace cosmos::modules
