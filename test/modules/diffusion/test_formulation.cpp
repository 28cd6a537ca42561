#include <catch2/catch.hpp>
#include <cmath>

#include "modules/diffusion/conditioning.h"
#include "modules/diffusion/formulation.h"
#include "modules/diffusion/noise.h"

namespace cosmos::modules {
namespace {

const Formulation kAll[] = {Formulation::kEdm, Formulation::kPredict2, Formulation::kRectifiedFlow};

struct Draw {
  Tensor x0 = Philox(1, Purpose::kNoise, 0).normal({2, 3, 4, 2, 2}).to(torch::kFloat64);
  Tensor noise = Philox(1, Purpose::kNoise, 1).normal({2, 3, 4, 2, 2}).to(torch::kFloat64);
};

double largest(const Tensor& x) {
  return x.abs().max().item<double>();
}

}  // namespace

TEST_CASE("a network that hits its target predicts the clean latents", "[diffusion]") {
  Draw d;
  const Tensor per_clip = torch::tensor({0.02, 0.7}, torch::kFloat64);
  const Tensor per_frame = torch::rand({2, 4}, torch::kFloat64) * 0.9 + 0.05;
  for (Formulation formulation : kAll) {
    for (const Tensor& sigma : {per_clip, per_frame}) {
      const auto options = published_options(formulation);
      const Tensor x = add_noise(options, d.x0, d.noise, sigma);
      const Tensor target = mix(target_mixture(options, sigma), d.x0, d.noise);
      CHECK(largest(predict_x0(options, x, target, sigma) - d.x0) < 1e-12);
    }
  }
}

TEST_CASE("the published weight on x0 is a constant weight on the network's output",
          "[diffusion]") {
  Draw d;
  const Tensor sigma = torch::tensor({0.05, 0.8}, torch::kFloat64);
  for (Formulation formulation : kAll) {
    const auto options = published_options(formulation);
    const Tensor x = add_noise(options, d.x0, d.noise, sigma);
    const Tensor target = mix(target_mixture(options, sigma), d.x0, d.noise);
    const Tensor output = target + 0.1 * d.noise.flip(0);
    const Tensor in_x0 = broadcast_sigma(x0_weight(options, sigma), x) *
                         (predict_x0(options, x, output, sigma) - d.x0).square();
    const Tensor in_output = output_weight(options) * (output - target).square();
    CHECK(largest(in_x0 - in_output) < 1e-10);
  }
}

TEST_CASE("inputs and times follow the published formulas", "[diffusion]") {
  const Tensor x = torch::ones({1, 1, 1, 1, 1}, torch::kFloat64);
  const Tensor sigma = torch::tensor({3.0}, torch::kFloat64);
  const auto edm = published_options(Formulation::kEdm);
  CHECK(network_input(edm, x, sigma).item<double>() == Approx(1 / std::sqrt(9.25)));
  CHECK(network_time(edm, sigma).item<double>() == Approx(std::log(3.0) / 4));
  const auto predict2 = published_options(Formulation::kPredict2);
  CHECK(network_input(predict2, x, sigma).item<double>() == Approx(0.25));
  CHECK(network_time(predict2, sigma).item<double>() == Approx(0.75));
  CHECK(formulation_from("predict2", "here") == Formulation::kPredict2);
  CHECK_THROWS_WITH(formulation_from("flow", "c.json: formulation"),
                    "c.json: formulation: expected edm, predict2 or rectified_flow, got \"flow\"");
}

TEST_CASE("noise levels have the published distributions", "[diffusion]") {
  constexpr int kDraws = 4000;
  auto median_and_high = [&](const DiffusionOptions& options, int64_t frames) {
    std::vector<double> draws;
    int high = 0;
    for (int i = 0; i < kDraws; ++i) {
      Philox random(7, Purpose::kTimestep, i);
      draws.push_back(draw_sigma(options, frames, random));
      high += draws.back() >= 199.9;
    }
    std::nth_element(draws.begin(), draws.begin() + kDraws / 2, draws.end());
    return std::pair(draws[kDraws / 2], static_cast<double>(high) / kDraws);
  };
  // The median of the logit-normal is 1/2; shifted by 5 it is 5/6.
  CHECK(median_and_high(published_options(Formulation::kRectifiedFlow), 24).first ==
        Approx(5.0 / 6).margin(0.01));
  const auto [median, high] = median_and_high(published_options(Formulation::kPredict2), 24);
  CHECK(high == Approx(0.05).margin(0.015));
  CHECK(median == Approx(std::sqrt(24.0)).epsilon(0.12));
  CHECK(median_and_high(published_options(Formulation::kPredict2), 1).first ==
        Approx(1.0).epsilon(0.06));
  CHECK(median_and_high(published_options(Formulation::kEdm), 16).first ==
        Approx(4.0).epsilon(0.06));
}

TEST_CASE("given frames are clean, marked, timed and left out of the loss", "[diffusion]") {
  Draw d;
  const Tensor indicator = condition_indicator({1, 2}, 4);
  CHECK(indicator.sum({1, 2, 3, 4}).equal(torch::tensor({1.0f, 2.0f})));
  CHECK(condition_mask(indicator, 5, 6).sizes() == at::IntArrayRef({2, 1, 4, 5, 6}));
  const Tensor placed = place_frames(indicator, d.x0, d.noise);
  CHECK(placed[1].narrow(1, 0, 2).equal(d.x0[1].narrow(1, 0, 2)));
  CHECK(placed[1].narrow(1, 2, 2).equal(d.noise[1].narrow(1, 2, 2)));

  const Tensor time = torch::tensor({0.5f, 0.25f});
  CHECK(frame_timestep(indicator, time, -1).equal(time));
  const Tensor per_frame = frame_timestep(indicator, time, 0.125);
  CHECK(per_frame.flatten().equal(torch::tensor({.125f, .5f, .5f, .5f, .125f, .125f, .25f, .25f})));

  const Tensor own = torch::tensor({0.0f, 0.75f});
  CHECK(frame_levels(indicator, own, time)
            .flatten()
            .equal(torch::tensor({0.f, .5f, .5f, .5f, .75f, .75f, .25f, .25f})));

  // An error of 2 everywhere: 4 over generated frames; NVIDIA's mean counts given frames as 0.
  const DiffusionOptions flow = published_options(Formulation::kRectifiedFlow);
  const Tensor output = d.noise - d.x0 + 2;
  const auto loss = [&](LossFrames frames) {
    return clip_losses(flow, output, d.x0, d.noise, time, frame_weights(indicator, frames));
  };
  CHECK(largest(loss(LossFrames::kGenerated) - 4) < 1e-12);
  CHECK(largest(loss(LossFrames::kAll) - torch::tensor({3.0, 2.0}, torch::kFloat64)) < 1e-12);
  const Tensor all_given = torch::ones({1, 1, 4, 1, 1});
  CHECK(largest(frame_weights(all_given, LossFrames::kGenerated)) == 0);
  CHECK_THROWS_AS(condition_indicator({5}, 4), Error);
}

TEST_CASE("a frame's input is the scaled noisy latents at that frame's level", "[diffusion]") {
  Draw d;
  const Tensor levels =
      torch::tensor({{0.0, 0.4, 0.4, 0.4}, {0.0, 0.0, 0.9, 0.9}}, torch::kFloat64);
  for (Formulation formulation : kAll) {
    const auto options = published_options(formulation);
    const Tensor expected =
        network_input(options, add_noise(options, d.x0, d.noise, levels), levels);
    const Tensor input = mix(input_mixture(options, levels), d.x0, d.noise);
    CHECK(largest(input - expected) < 1e-12);
    // Level 0 is the clean latents, as both flows show given frames.
    if (formulation != Formulation::kEdm) CHECK(input.select(2, 0).equal(d.x0.select(2, 0)));
  }
}

TEST_CASE("the number of given frames follows its probabilities", "[diffusion]") {
  const std::vector<double> probabilities = {0.5, 0.25, 0.25};
  CHECK(draw_condition_frames(probabilities, 0.0) == 0);
  CHECK(draw_condition_frames(probabilities, 0.49) == 0);
  CHECK(draw_condition_frames(probabilities, 0.51) == 1);
  CHECK(draw_condition_frames(probabilities, 0.999) == 2);
  CHECK(draw_condition_frames({0, 1, 0}, 0.999999) == 1);
  CHECK_THROWS_AS(draw_condition_frames({0, 0}, 0.5), Error);
}

TEST_CASE("dropped text is zeros", "[diffusion]") {
  const Tensor text = torch::ones({2, 3, 4});
  CHECK(drop_text(text, {true, false}).sum({1, 2}).equal(torch::tensor({0.0f, 12.0f})));
}

TEST_CASE("noise for NVIDIA's seeds is NumPy's", "[diffusion]") {
  // numpy.random.RandomState(42).standard_normal(5)
  const Tensor expected =
      torch::tensor({0.4967141530f, -0.1382643012f, 0.6476885381f, 1.5230298564f, -0.2341533747f});
  CHECK(largest(numpy_normal(42, {5}) - expected) < 1e-7);
}

}  // namespace cosmos::modules
