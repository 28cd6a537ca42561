// bench-ops: the operators' case lists, timed. For each case: forward and backward of the fused
// operator and of its plain formula, bytes per second against this machine's measured copy, or time
// against a peer's (lora_linear: the frozen linear). One JSON object a line, or a table. Cases
// without gradients (copies between buffers of fixed dtypes) run once, forward alone.

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cxxopts.hpp>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <torch/autograd.h>

#include "ops/core/error.h"
#include "test/ops/dropout/dropout_cases.h"
#include "test/ops/lora_linear/lora_linear_cases.h"
#include "test/ops/norm/adaln_cases.h"
#include "test/ops/rms_norm/rms_norm_cases.h"
#include "test/ops/shard_copy/shard_copy_cases.h"

namespace {

using namespace cosmos;
using test::OpCase;
using Tensors = std::vector<at::Tensor>;
using Json = nlohmann::json;

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

/// Median seconds of each function over at least 20 calls and 0.3 s. They are called in turn: what
/// else the machine does falls on all of them, and their ratios hold.
std::vector<double> median_seconds(const std::vector<std::function<void()>>& functions) {
  using Clock = std::chrono::steady_clock;
  constexpr std::size_t kWarmUp = 3, kRounds = 20;
  std::vector<std::vector<double>> times(functions.size());
  double total = 0;
  for (std::size_t round = 0; round < kWarmUp + kRounds || total < 0.3; ++round)
    for (std::size_t i = 0; i < functions.size(); ++i) {
      const auto start = Clock::now();
      functions[i]();
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      if (round < kWarmUp) continue;
      times[i].push_back(seconds);
      total += seconds / static_cast<double>(functions.size());
    }
  std::vector<double> medians;
  for (auto& each : times) medians.push_back(median(std::move(each)));
  return medians;
}

/// Bytes per second (read + written) of copying `bytes`, which decides the cache level it runs in.
double copy_bandwidth(int64_t bytes) {
  const at::Tensor from = at::randn({bytes / 4}), to = at::empty_like(from);
  return 2.0 * static_cast<double>(bytes) / median_seconds({[&] { to.copy_(from); }})[0];
}

struct Timing {
  double forward, backward;
  double total() const { return forward + backward; }
};

using Call = std::function<void()>;

/// A forward call of fn, and the backward of one.
std::pair<Call, Call> calls_of(const test::OpFunction& fn, const Tensors& inputs) {
  Tensors leaves, seeds;
  for (const at::Tensor& x : inputs)
    if (x.requires_grad()) leaves.push_back(x);
  const Tensors out = fn(inputs);
  if (leaves.empty()) return {median_seconds([&] { fn(inputs); }), NAN};
  for (const at::Tensor& y : out) seeds.push_back(at::randn_like(y));
  return {[&fn, &inputs] { fn(inputs); },
          [out, leaves, seeds] {
            torch::autograd::grad(out, leaves, seeds, /*retain_graph=*/true,
                                  /*create_graph=*/false, /*allow_unused=*/true);
          }};
}

Timing time_op(const test::OpFunction& fn, const Tensors& inputs) {
  const auto [forward, backward] = calls_of(fn, inputs);
  return {median_seconds({forward})[0], median_seconds({backward})[0]};
}

Json bench_against_peer(const OpCase& c, at::ScalarType dtype, const Tensors& inputs) {
  std::vector<Call> calls;
  for (const auto* fn : {&c.fused, &c.reference, &c.peer}) {
    auto [forward, backward] = calls_of(*fn, inputs);
    calls.insert(calls.end(), {forward, backward});
  }
  const auto seconds = median_seconds(calls);
  const Timing fused{seconds[0], seconds[1]}, plain{seconds[2], seconds[3]},
      peer{seconds[4], seconds[5]};
  return {{"case", c.name},
          {"dtype", c10::toString(dtype)},
          {"forward_ms", fused.forward * 1e3},
          {"backward_ms", fused.backward * 1e3},
          {"peer_forward_ms", peer.forward * 1e3},
          {"peer_backward_ms", peer.backward * 1e3},
          {"fused_over_peer", fused.total() / peer.total()},
          {"plain_over_peer", plain.total() / peer.total()}};
}

Json bench(const OpCase& c, at::ScalarType dtype) {
  torch::manual_seed(0);
  Tensors inputs;
  for (const at::Tensor& x : c.inputs())
    inputs.push_back(x.requires_grad() ? x.detach().to(dtype).requires_grad_() : x);
  if (c.peer) return bench_against_peer(c, dtype, inputs);
  const Timing fused = time_op(c.fused, inputs), plain = time_op(c.reference, inputs);
  const double size = static_cast<double>(inputs[0].numel() * inputs[0].element_size());
  const double copy = copy_bandwidth(static_cast<int64_t>(size));
  const double forward = c.forward_passes * size / fused.forward;
  const double backward = c.backward_passes * size / fused.backward;
  return {{"case", c.name},
          {"dtype", c10::toString(dtype)},
          {"forward_ms", fused.forward * 1e3},
          {"backward_ms", fused.backward * 1e3},
          {"forward_gb_s", forward / 1e9},
          {"backward_gb_s", backward / 1e9},
          {"copy_gb_s", copy / 1e9},
          {"forward_of_copy", forward / copy},
          {"backward_of_copy", backward / copy},
          {"plain_over_fused_forward", plain.forward / fused.forward},
          {"plain_over_fused_backward", plain.backward / fused.backward}};
}

void print_peer_row(const Json& r) {
  std::printf("%-42s %-9s %8.3f %8.3f, peer %8.3f %8.3f: %.3f of the peer, plain %.3f\n",
              r["case"].get<std::string>().c_str(), r["dtype"].get<std::string>().c_str(),
              r["forward_ms"].get<double>(), r["backward_ms"].get<double>(),
              r["peer_forward_ms"].get<double>(), r["peer_backward_ms"].get<double>(),
              r["fused_over_peer"].get<double>(), r["plain_over_peer"].get<double>());
}

void print_row(const Json& r) {
  if (r.contains("fused_over_peer")) return print_peer_row(r);
  std::printf("%-42s %-9s %8.3f %6.1f %4.0f%% %6.1fx %8.3f %6.1f %4.0f%% %6.1fx\n",
              r["case"].get<std::string>().c_str(), r["dtype"].get<std::string>().c_str(),
              r["forward_ms"].get<double>(), r["forward_gb_s"].get<double>(),
              100 * r["forward_of_copy"].get<double>(), r["plain_over_fused_forward"].get<double>(),
              r["backward_ms"].get<double>(), r["backward_gb_s"].get<double>(),
              100 * r["backward_of_copy"].get<double>(),
              r["plain_over_fused_backward"].get<double>());
}

std::vector<std::vector<OpCase>> all_cases() {
  return {
      test::adaln_cases(),
      test::rms_norm_cases(),
      test::rms_norm_rope_cases(),
      test::shard_copy_benchmarks(),
      test::dropout_cases(),
      test::lora_linear_cases(),
  };
}

}  // namespace

int main(int argc, char** argv) {
  cxxopts::Options options("bench-ops", "Times the fused operators on their benchmark cases.");
  options.add_options()("json", "one JSON object a line instead of a table")(
      "threads", "CPU threads", cxxopts::value<int>()->default_value("2"))(
      "filter", "cases whose name contains this", cxxopts::value<std::string>()->default_value(""))(
      "h,help", "this text");
  try {
    const auto args = options.parse(argc, argv);
    if (args.count("help")) {
      std::cout << options.help() << "\n";
      return 0;
    }
    torch::set_num_threads(args["threads"].as<int>());
    const bool json = args.count("json") > 0;
    if (!json)
      std::printf("%-42s %-9s %8s %6s %5s %7s %8s %6s %5s %7s\n", "case", "dtype", "fwd ms", "GB/s",
                  "copy", "plain", "bwd ms", "GB/s", "copy", "plain");
    for (const auto& list : all_cases())
      for (const OpCase& c : list) {
        if (!c.benchmark || c.name.find(args["filter"].as<std::string>()) == std::string::npos)
          continue;
        const bool fixed_dtypes = c.backward_passes == 0;
        for (const auto dtype : {at::kFloat, at::kBFloat16}) {
          if (fixed_dtypes && dtype != at::kFloat) continue;
          const Json row = bench(c, dtype);
          if (json)
            std::cout << row.dump() << std::endl;
          else
            print_row(row);
        }
      }
  } catch (const std::exception& error) {
    std::cerr << "bench-ops: " << error.what() << "\n";
    return 1;
  }
}
