// bench-dit-step: one training step of the DiT, timed; or its floor, the step's own products and
// attention through the same library calls with everything else left out. One JSON object on
// stdout. tools/bench/dit_step.sh runs it in pairs with the public Python class.

#include <cxxopts.hpp>
#include <iostream>

#include "modules/dit/transformer.h"
#include "ops/adamw/adamw.h"
#include "tools/bench/measure.h"
#include "tools/program.h"

namespace {

using namespace cosmos;
using namespace cosmos::modules;

// The benchmark's shape, the same as in dit_step_peer.py.
constexpr int64_t kFrames = 4, kHeight = 24, kWidth = 40, kChannels = 16, kText = 64;
constexpr int64_t kTextDim = 1024;
constexpr double kClip = 1.0;

DitConfig bench_config() {
  DitConfig config;
  config.num_attention_heads = 8;
  config.attention_head_dim = 64;
  config.num_layers = 8;
  config.text_embed_dim = kTextDim;
  config.extra_pos_embed_type.reset();
  return config;
}

/// The training step: forward, squared error, backward, clipping, AdamW.
class TrainingStep {
 public:
  explicit TrainingStep(bool per_frame) : model_(bench_config()) {
    for (const Tensor& p : model_.parameters()) {
      state_.params.push_back(p);
      state_.exp_avg.push_back(torch::zeros_like(p));
      state_.exp_avg_sq.push_back(torch::zeros_like(p));
      state_.step.push_back(torch::zeros({}));
    }
    inputs_.hidden_states = torch::randn({1, kChannels, kFrames, kHeight, kWidth});
    inputs_.encoder_hidden_states = torch::randn({1, kText, kTextDim});
    inputs_.timestep = per_frame ? torch::rand({1, 1, kFrames, 1, 1}) : torch::rand({1});
    inputs_.fps = 24;
    inputs_.padding_mask = torch::zeros({1, 1, kHeight, kWidth});
    target_ = torch::randn_like(inputs_.hidden_states);
  }

  double operator()() {
    const Tensor loss = (model_.forward(inputs_) - target_).pow(2).mean();
    loss.backward();
    const torch::NoGradGuard no_grad;
    state_.grads.clear();
    for (const Tensor& p : state_.params) state_.grads.push_back(p.grad());
    const Tensor clip = ops::clip_coefficient(ops::grad_norm(state_.grads), kClip);
    ops::adamw_step(state_, {.lr = 1e-4}, clip);
    for (Tensor& p : state_.params) p.mutable_grad().reset();
    return loss.item<double>();
  }

 private:
  CosmosTransformer3DModel model_;
  ops::AdamWState state_;
  DitInputs inputs_;
  Tensor target_;
};

/// Every product and attention that TrainingStep makes, forward and backward, on tensors of its
/// own.
class Floor {
 public:
  explicit Floor(bool per_frame) {
    const DitConfig c = bench_config();
    const int64_t D = c.hidden_size(), R = c.adaln_lora_dim, rows = per_frame ? kFrames : 1;
    const int64_t N = kFrames * kHeight * kWidth / 4;
    product(N, (c.in_channels + 1) * 4, D, /*input_grad=*/false);
    product(rows, D, D, false);
    product(rows, D, 3 * D, true);
    for (int64_t layer = 0; layer < c.num_layers; ++layer) {
      for (int i = 0; i < 3; ++i) {
        product(rows, D, R, i > 0 || layer > 0);
        product(rows, R, 3 * D, true);
      }
      for (int i = 0; i < 6; ++i) product(N, D, D, true);  // q k v out, then q out of the cross one
      for (int i = 0; i < 2; ++i) product(kText, kTextDim, D, false);
      product(N, D, 4 * D, true);
      product(N, 4 * D, D, true);
      attention(c, N, N);
      attention(c, N, kText);
    }
    product(rows, D, R, true);
    product(rows, R, 2 * D, true);
    product(N, D, c.out_channels * 4, true);
  }

  double operator()() {
    const torch::NoGradGuard no_grad;
    Tensors kept;  // activations and weight gradients live until the step ends, as in training
    for (const Product& p : products_) kept.push_back(torch::linear(p.x, p.weight));
    for (const Attention& a : attentions_) {
      const auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(a.q, a.k, a.v);
      kept.push_back(out);
      const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          a.grad, a.q, a.k, a.v, out, lse, 0.0, false);
    }
    for (const Product& p : products_) {
      if (p.input_grad) torch::mm(p.grad, p.weight);
      kept.push_back(torch::mm(p.grad.t(), p.x));
    }
    return 0;
  }

 private:
  struct Product {
    Tensor x, weight, grad;
    bool input_grad;
  };
  struct Attention {
    Tensor q, k, v, grad;
  };
  void product(int64_t rows, int64_t in, int64_t out, bool input_grad) {
    products_.push_back(
        {torch::randn({rows, in}), torch::randn({out, in}), torch::randn({rows, out}), input_grad});
  }
  void attention(const DitConfig& c, int64_t queries, int64_t keys) {
    const auto heads = [&](int64_t length) {
      return torch::randn({1, length, c.num_attention_heads, c.attention_head_dim}).transpose(1, 2);
    };
    attentions_.push_back({heads(queries), heads(keys), heads(keys), heads(queries)});
  }

  std::vector<Product> products_;
  std::vector<Attention> attentions_;
};

int run(int argc, char** argv) {
  cxxopts::Options options("bench-dit-step", "Times the DiT's training step, or its floor.");
  // clang-format off
  options.add_options()
    ("what", "step or floor", cxxopts::value<std::string>()->default_value("step"))
    ("timestep", "clip: one a clip; frame: one a frame",
     cxxopts::value<std::string>()->default_value("clip"))
    ("steps", "steps to time, the first included",
     cxxopts::value<int64_t>()->default_value("8"))
    ("threads", "CPU threads", cxxopts::value<int>()->default_value("2"))
    ("h,help", "this text");
  // clang-format on
  const auto args = options.parse(argc, argv);
  if (args.count("help")) {
    std::cout << options.help() << "\n";
    return 0;
  }
  torch::set_num_threads(args["threads"].as<int>());
  torch::manual_seed(0);
  const std::string what = args["what"].as<std::string>();
  const std::string timestep = args["timestep"].as<std::string>();
  require(what == "step" || what == "floor", "--what: expected step or floor, got ", what);
  require(timestep == "clip" || timestep == "frame", "--timestep: expected clip or frame, got ",
          timestep);
  Json result;
  if (what == "step") {
    TrainingStep step(timestep == "frame");
    result = tools::measure(step, args["steps"].as<int64_t>());
  } else {
    Floor floor(timestep == "frame");
    result = tools::measure(floor, args["steps"].as<int64_t>());
  }
  result["what"] = what == "step" ? "cosmos" : "floor";
  result["timestep"] = timestep;
  result["threads"] = torch::get_num_threads();
  std::cout << result.dump() << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("bench-dit-step", argc, argv, run);
}
