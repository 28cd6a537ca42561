#include "modules/pipeline/denoise.h"

#include "modules/diffusion/conditioning.h"

namespace cosmos::modules {
namespace {

// What the network sees and what its output becomes at one noise level.
class Level {
 public:
  Level(const Tensor& noise, const GivenFrames& given, const DenoiseOptions& options, double sigma,
        double time, int64_t step)
      : noise_(noise), given_(given), options_(options), step_(step), sigma_value_(sigma) {
    const auto f64 = noise.options().dtype(torch::kFloat64);
    sigma_ = torch::full({noise.size(0)}, sigma, f64);
    time_ = time >= 0 ? torch::full_like(sigma_, time) : network_time(options.diffusion, sigma_);
    time_ = frame_timestep(given.indicator.to(f64), time_, options.condition_time);
    time_ = time_.to(torch::kFloat32);
  }

  bool flow() const { return options_.diffusion.formulation == Formulation::kRectifiedFlow; }
  const Tensor& time() const { return time_; }

  Tensor input(const Tensor& x) const {
    const Tensor scaled = network_input(options_.diffusion, x, sigma_);
    if (options_.diffusion.formulation != Formulation::kEdm)
      return place_frames(given_.indicator, given_.latents, scaled);
    if (options_.condition_sigma >= sigma_value_) return scaled;
    Philox random(options_.seed, Purpose::kCondition, static_cast<uint64_t>(step_));
    const Tensor own = torch::full_like(sigma_, options_.condition_sigma);
    const Tensor shown =
        add_noise(options_.diffusion, given_.latents, random.normal(x.sizes()).to(x.device()), own);
    return place_frames(given_.indicator, network_input(options_.diffusion, shown, own), scaled);
  }

  // Velocity (rectified flow) or clean latents, right on given frames.
  Tensor reading(const Tensor& output, const Tensor& x) const {
    if (flow()) return place_frames(given_.indicator, noise_ - given_.latents, output);
    const Tensor x0 = predict_x0(options_.diffusion, x, output, sigma_);
    const bool edm = options_.diffusion.formulation == Formulation::kEdm;
    if (edm && options_.condition_sigma >= sigma_value_) return x0;
    return place_frames(given_.indicator, given_.latents, x0);
  }

 private:
  const Tensor& noise_;
  const GivenFrames& given_;
  const DenoiseOptions& options_;
  int64_t step_;
  double sigma_value_;
  Tensor sigma_, time_;
};

}  // namespace

Tensor denoise(const Network& network, Sampler& sampler, const Tensor& noise,
               const GivenFrames& given, const Tensor& text, const Tensor& negative_text,
               const DenoiseOptions& options) {
  const torch::NoGradGuard no_grad;
  const bool guided = options.guidance != 0;
  require(!guided || negative_text.defined(),
          "guidance needs negative text embeddings (zeros count)");
  const Tensor mask = condition_mask(given.indicator, noise.size(3), noise.size(4));
  const auto timesteps = sampler.timesteps();
  Tensor x = noise * sampler.initial_scale();
  for (int64_t i = 0; i < sampler.steps(); ++i) {
    const double time = options.integer_times ? timesteps[i] * 0.001 : -1;
    const Level level(noise, given, options, sampler.sigmas()[i], time, i);
    const Tensor x32 = x.to(torch::kFloat32);
    const Tensor input = level.input(x32);
    const auto call = [&](const Tensor& words) {
      return level.reading(network(input, level.time(), mask, words).to(x32.options()), x32);
    };
    Tensor reading = call(text);
    if (guided) reading = guide(reading, call(negative_text), options.guidance);
    x = level.flow() ? sampler.step(reading, x) : sampler.step_x0(reading, x);
    if (options.progress) options.progress(i + 1, sampler.steps());
  }
  return x.to(torch::kFloat32);
}

}  // namespace cosmos::modules
