// bench-linear-cross-entropy: forward and backward of a language model's head and loss, time and
// peak memory, fused against torch operation by operation. One JSON object a line, or a table.

#include "ops/linear_cross_entropy/linear_cross_entropy.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_softmax.h>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cxxopts.hpp>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <torch/autograd.h>

#include "test/support/peak_memory.h"

namespace {

using namespace cosmos;
using at::Tensor;
using Json = nlohmann::json;
using Loss = std::function<Tensor(const Tensor&, const Tensor&, const Tensor&)>;

struct Case {
  const char* name;
  bool frozen_weight, backward;
  Loss fused, plain;
};

Tensor plain_log_probs(const Tensor& hidden, const Tensor& weight, const Tensor& target) {
  return at::log_softmax(at::linear(hidden, weight), -1).gather(-1, target.unsqueeze(-1));
}

std::vector<Case> all_cases() {
  const Loss fused = [](const auto& h, const auto& w, const auto& t) {
    return ops::linear_cross_entropy(h, w, t);
  };
  const Loss plain = [](const auto& h, const auto& w, const auto& t) {
    return at::cross_entropy_loss(at::linear(h, w), t);
  };
  // Each token's gradient is its own, as a policy gradient's is.
  const Loss policy = [](const auto& h, const auto& w, const auto& t) {
    const Tensor log_p = ops::linear_log_probs(h, w, t);
    return (log_p * log_p.detach()).mean();
  };
  const Loss plain_policy = [](const auto& h, const auto& w, const auto& t) {
    const Tensor log_p = plain_log_probs(h, w, t);
    return (log_p * log_p.detach()).mean();
  };
  return {{"loss", false, true, fused, plain},
          {"loss, frozen weight", true, true, fused, plain},
          {"loss, forward alone", true, false, fused, plain},
          {"log p", false, true, policy, plain_policy}};
}

/// Runs one step; the tensors it leaves (gradients) are what it cannot do without.
int64_t step(const Loss& loss, bool backward, const std::vector<Tensor>& leaves,
             const std::vector<Tensor>& t) {
  if (!backward) {
    const at::NoGradGuard no_grad;
    loss(t[0], t[1], t[2]);
    return 0;
  }
  int64_t bytes = 0;
  for (const Tensor& g : torch::autograd::grad({loss(t[0], t[1], t[2])}, leaves))
    bytes += g.numel() * g.element_size();
  return bytes;
}

Json measure(const Loss& loss, const Case& c, const std::vector<Tensor>& t, int repeats) {
  std::vector<Tensor> leaves = {t[0]};
  if (!c.frozen_weight) leaves.push_back(t[1]);
  int64_t kept = 0;
  const int64_t peak =
      test::peak_bytes([&] { kept = step(loss, c.backward, leaves, t); });  // warms up, too
  double best = 1e9;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    step(loss, c.backward, leaves, t);
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return {{"ms", best * 1e3}, {"mb_beyond_gradients", static_cast<double>(peak - kept) / 1e6}};
}

}  // namespace

int main(int argc, char** argv) {
  cxxopts::Options options("bench-linear-cross-entropy",
                           "Times a language model's head and loss; best of some steps.");
  options.add_options()("json", "one JSON object a line instead of a table")(
      "threads", "CPU threads", cxxopts::value<int>()->default_value("2"))(
      "tokens", "N", cxxopts::value<std::vector<int64_t>>()->default_value("512,2048"))(
      "width", "D", cxxopts::value<int64_t>()->default_value("1024"))(
      "classes", "V", cxxopts::value<int64_t>()->default_value("151936"))(
      "bfloat16", "instead of float32")("repeats", "steps timed",
                                        cxxopts::value<int>()->default_value("3"))(
      "filter", "cases whose name contains this", cxxopts::value<std::string>()->default_value(""))(
      "h,help", "this text");
  try {
    const auto args = options.parse(argc, argv);
    if (args.count("help")) {
      std::cout << options.help() << "\n";
      return 0;
    }
    at::set_num_threads(args["threads"].as<int>());
    const auto dtype = args.count("bfloat16") ? at::kBFloat16 : at::kFloat;
    const int64_t width = args["width"].as<int64_t>(), classes = args["classes"].as<int64_t>();
    if (!args.count("json"))
      std::printf("%-22s %6s %10s %10s %6s %10s %10s\n", "case", "tokens", "plain ms", "fused ms",
                  "ratio", "plain MB", "fused MB");
    for (const int64_t tokens : args["tokens"].as<std::vector<int64_t>>())
      for (const Case& c : all_cases()) {
        if (std::string(c.name).find(args["filter"].as<std::string>()) == std::string::npos)
          continue;
        const std::vector<Tensor> t = {
            at::randn({tokens, width}).to(dtype).requires_grad_(),
            at::randn({classes, width}).mul_(0.02).to(dtype).requires_grad_(!c.frozen_weight),
            at::randint(classes, {tokens}, at::kLong)};
        const int repeats = args["repeats"].as<int>();
        const Json plain = measure(c.plain, c, t, repeats), fused = measure(c.fused, c, t, repeats);
        if (args.count("json")) {
          std::cout << Json{{"case", c.name},
                            {"tokens", tokens},
                            {"width", width},
                            {"classes", classes},
                            {"dtype", c10::toString(dtype)},
                            {"plain", plain},
                            {"fused", fused}}
                           .dump()
                    << std::endl;
          continue;
        }
        std::printf(
            "%-22s %6lld %10.0f %10.0f %5.2fx %10.1f %10.1f\n", c.name,
            static_cast<long long>(tokens), plain["ms"].get<double>(), fused["ms"].get<double>(),
            plain["ms"].get<double>() / fused["ms"].get<double>(),
            plain["mb_beyond_gradients"].get<double>(), fused["mb_beyond_gradients"].get<double>());
      }
  } catch (const std::exception& error) {
    std::cerr << "bench-linear-cross-entropy: " << error.what() << "\n";
    return 1;
  }
}
