// bench-linear-cross-entropy: forward and backward of a language model's head and loss, time and
// peak memory, fused against torch operation by operation.

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

#include "ops/core/peak_memory.h"
#include "tools/bench/page.h"
#include "tools/program.h"

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
      peak_bytes([&] { kept = step(loss, c.backward, leaves, t); });  // warms up, too
  double best = 1e9;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    step(loss, c.backward, leaves, t);
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return {{"ms", best * 1e3}, {"mb_beyond_gradients", static_cast<double>(peak - kept) / 1e6}};
}

const std::vector<std::string> kColumns = {"case",     "dtype",       "tokens",   "plain ms",
                                           "fused ms", "plain/fused", "plain MB", "fused MB"};

void print_row(const std::vector<std::string>& cells) {
  std::printf("%-22s", cells[0].c_str());
  for (std::size_t i = 1; i < cells.size(); ++i) std::printf(" %11s", cells[i].c_str());
  std::printf("\n");
  std::fflush(stdout);
}

std::vector<std::string> table_row(const Json& r) {
  const auto ms = [&](const char* side) { return r[side]["ms"].get<double>(); };
  const auto mb = [&](const char* side) { return r[side]["mb_beyond_gradients"].get<double>(); };
  return {r["case"].get<std::string>(),
          r["dtype"].get<std::string>(),
          r["tokens"].dump(),
          tools::format("%.0f", ms("plain")),
          tools::format("%.0f", ms("fused")),
          tools::format("%.2f", ms("plain") / ms("fused")),
          tools::format("%.1f", mb("plain")),
          tools::format("%.1f", mb("fused"))};
}

int run(int argc, char** argv) {
  cxxopts::Options options("bench-linear-cross-entropy",
                           "Times a language model's head and loss; best of some steps.");
  options.add_options()("json", "one JSON object a line instead of a table")(
      "page", "also write PAGE.md and PAGE.json", cxxopts::value<std::string>())(
      "threads", "CPU threads", cxxopts::value<int>()->default_value("2"))(
      "tokens", "N", cxxopts::value<std::vector<int64_t>>()->default_value("512,2048"))(
      "width", "D", cxxopts::value<int64_t>()->default_value("1024"))(
      "classes", "V", cxxopts::value<int64_t>()->default_value("151936"))(
      "bfloat16", "instead of float32")("repeats", "steps timed",
                                        cxxopts::value<int>()->default_value("3"))(
      "filter", "cases whose name contains this", cxxopts::value<std::string>()->default_value(""))(
      "h,help", "this text");
  const auto args = options.parse(argc, argv);
  if (args.count("help")) {
    std::cout << options.help() << "\n";
    return 0;
  }
  const int threads = args["threads"].as<int>(), repeats = args["repeats"].as<int>();
  at::set_num_threads(threads);
  const auto dtype = args.count("bfloat16") ? at::kBFloat16 : at::kFloat;
  const int64_t width = args["width"].as<int64_t>(), classes = args["classes"].as<int64_t>();
  const bool json = args.count("json") > 0;
  tools::Page page(
      "Head and loss of a language model on the CPU",
      "build/cpu/bin/bench-linear-cross-entropy --page docs/benchmarks/linear_cross_entropy",
      "A head of " + std::to_string(classes) + " classes on rows of " + std::to_string(width) +
          ". MB: peak memory beyond inputs and gradients.",
      threads);
  page.set_columns(kColumns);
  if (!json) print_row(kColumns);
  for (const int64_t tokens : args["tokens"].as<std::vector<int64_t>>())
    for (const Case& c : all_cases()) {
      if (std::string(c.name).find(args["filter"].as<std::string>()) == std::string::npos) continue;
      const std::vector<Tensor> t = {
          at::randn({tokens, width}).to(dtype).requires_grad_(),
          at::randn({classes, width}).mul_(0.02).to(dtype).requires_grad_(!c.frozen_weight),
          at::randint(classes, {tokens}, at::kLong)};
      const Json row = {{"case", c.name},
                        {"tokens", tokens},
                        {"width", width},
                        {"classes", classes},
                        {"dtype", c10::toString(dtype)},
                        {"plain", measure(c.plain, c, t, repeats)},
                        {"fused", measure(c.fused, c, t, repeats)}};
      if (json)
        std::cout << row.dump() << std::endl;
      else
        print_row(table_row(row));
      page.add(table_row(row), row);
    }
  if (args.count("page")) page.write(args["page"].as<std::string>());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("bench-linear-cross-entropy", argc, argv, run);
}
