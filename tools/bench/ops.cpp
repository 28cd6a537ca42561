// bench-ops: the operators' case lists, timed. For each case: forward and backward of the fused
// operator and of its plain formula, bytes per second against this machine's measured copy, the
// speed-up against the ratio of bytes that both move; or, of what is arithmetic, time against a
// peer's (lora_linear: the frozen linear; otherwise the plain formula). Cases without gradients
// (copies between buffers of fixed dtypes) run once, forward alone.

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cxxopts.hpp>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <torch/autograd.h>
#include <torch/cuda.h>

#include "ops/core/error.h"
#include "test/ops/activation/activation_cases.h"
#include "test/ops/causal_conv/causal_conv_cases.h"
#include "test/ops/channel_norm/channel_norm_cases.h"
#include "test/ops/diffusion_loss/diffusion_loss_cases.h"
#include "test/ops/dropout/dropout_cases.h"
#include "test/ops/fp8/fp8_cases.h"
#include "test/ops/fsq/fsq_cases.h"
#include "test/ops/haar/haar_cases.h"
#include "test/ops/linear_cross_entropy/linear_cross_entropy_cases.h"
#include "test/ops/lora_linear/lora_linear_cases.h"
#include "test/ops/norm/adaln_cases.h"
#include "test/ops/patchify/patchify_cases.h"
#include "test/ops/rms_norm/rms_norm_cases.h"
#include "test/ops/shard_copy/shard_copy_cases.h"
#include "tools/bench/page.h"
#include "tools/bench/traffic.h"
#include "tools/program.h"

namespace {

using namespace cosmos;
using test::OpCase;
using Tensors = std::vector<at::Tensor>;
using Json = nlohmann::json;

at::Device device = at::kCPU;  ///< --device

/// Seconds of a call; on a GPU of one among many, so that it is busy while the next is launched.
double seconds_of(const std::function<void()>& fn) {
  using Clock = std::chrono::steady_clock;
  const int calls = device.is_cuda() ? 20 : 1;
  const auto start = Clock::now();
  for (int i = 0; i < calls; ++i) fn();
  if (device.is_cuda()) torch::cuda::synchronize();
  return std::chrono::duration<double>(Clock::now() - start).count() / calls;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

/// Median seconds of each function over at least 20 calls and 0.3 s. They are called in turn: what
/// else the machine does falls on all of them, and their ratios hold.
std::vector<double> median_seconds(const std::vector<std::function<void()>>& functions) {
  constexpr std::size_t kWarmUp = 3, kRounds = 20;
  std::vector<std::vector<double>> times(functions.size());
  double total = 0;
  for (std::size_t round = 0; round < kWarmUp + kRounds || total < 0.3; ++round)
    for (std::size_t i = 0; i < functions.size(); ++i) {
      const double seconds = seconds_of(functions[i]);
      if (round < kWarmUp) continue;
      times[i].push_back(seconds);
      total += seconds / static_cast<double>(functions.size());
    }
  std::vector<double> medians;
  for (auto& each : times) medians.push_back(median(std::move(each)));
  return medians;
}

using Call = std::function<void()>;

/// A forward call of fn, and the backward of one; backward is empty where nothing has gradients.
struct Calls {
  Call forward, backward;
};

Calls calls_of(const test::OpFunction& fn, const Tensors& inputs) {
  Tensors leaves, outs, seeds;
  for (const at::Tensor& x : inputs)
    if (x.requires_grad()) leaves.push_back(x);
  for (const at::Tensor& y : fn(inputs))
    if (y.requires_grad()) outs.push_back(y);
  Calls calls{[&fn, &inputs] { fn(inputs); }, {}};
  if (leaves.empty() || outs.empty()) return calls;
  for (const at::Tensor& y : outs) seeds.push_back(at::randn_like(y));
  calls.backward = [outs, leaves, seeds] {
    torch::autograd::grad(outs, leaves, seeds, /*retain_graph=*/true, /*create_graph=*/false,
                          /*allow_unused=*/true);
  };
  return calls;
}

/// One pass of a case: the fused operator, its plain formula, and a copy of its first input, whose
/// bytes a perfect kernel moves `passes` times.
Json bench_pass(const Call& fused, const Call& plain, double passes, int64_t bytes) {
  const at::Tensor from = at::randn({bytes / 4}, device), to = at::empty_like(from);
  const auto seconds = median_seconds({fused, plain, [&] { to.copy_(from); }});
  const double moved = passes * static_cast<double>(bytes), rate = moved / seconds[0];
  const double copy = 2.0 * static_cast<double>(bytes) / seconds[2];
  const double speedup = seconds[1] / seconds[0];
  const double bytes_ratio = static_cast<double>(tools::Traffic::bytes(plain)) / moved;
  return {{"ms", seconds[0] * 1e3},
          {"gb_s", rate / 1e9},
          {"of_copy", rate / copy},
          {"copy_gb_s", copy / 1e9},
          {"speedup", speedup},
          {"bytes_ratio", bytes_ratio},
          {"of_bytes_ratio", speedup / bytes_ratio}};
}

Json bench_against_peer(const OpCase& c, const Tensors& inputs) {
  std::vector<Call> calls;
  for (const auto* fn : {&c.fused, &c.reference, c.peer ? &c.peer : &c.reference}) {
    const Calls both = calls_of(*fn, inputs);
    calls.insert(calls.end(), {both.forward, both.backward});
  }
  const auto s = median_seconds(calls);
  return {{"forward_ms", s[0] * 1e3},
          {"backward_ms", s[1] * 1e3},
          {"peer_forward_ms", s[4] * 1e3},
          {"peer_backward_ms", s[5] * 1e3},
          {"fused_over_peer", (s[0] + s[1]) / (s[4] + s[5])},
          {"plain_over_peer", (s[2] + s[3]) / (s[4] + s[5])}};
}

Json bench(const OpCase& c, at::ScalarType dtype) {
  torch::manual_seed(0);
  Tensors inputs;
  for (const at::Tensor& x : c.inputs())
    inputs.push_back(x.requires_grad() ? x.detach().to(device, dtype).requires_grad_()
                                       : x.to(device));
  Json row = {{"case", c.name}, {"dtype", c10::toString(dtype)}};
  if (c.forward_passes == 0) {  // arithmetic
    row.update(bench_against_peer(c, inputs));
    return row;
  }
  const auto bytes = static_cast<int64_t>(inputs[0].numel() * inputs[0].element_size());
  const Calls fused = calls_of(c.fused, inputs), plain = calls_of(c.reference, inputs);
  row["forward"] = bench_pass(fused.forward, plain.forward, c.forward_passes, bytes);
  if (fused.backward)
    row["backward"] = bench_pass(fused.backward, plain.backward, c.backward_passes, bytes);
  return row;
}

const std::vector<std::string> kColumns = {"case", "dtype",   "pass",    "ms",
                                           "GB/s", "of copy", "x plain", "of bytes' ratio"};

/// A row as the table's lines: forward and backward, or both together against a peer.
std::vector<std::vector<std::string>> table_rows(const Json& r) {
  const auto name = r["case"].get<std::string>(), dtype = r["dtype"].get<std::string>();
  std::vector<std::vector<std::string>> rows;
  if (r.contains("fused_over_peer"))
    rows.push_back(
        {name, dtype, "both",
         tools::format("%.3f", r["forward_ms"].get<double>() + r["backward_ms"].get<double>()), "",
         "",
         tools::format("%.2f",
                       r["plain_over_peer"].get<double>() / r["fused_over_peer"].get<double>()),
         tools::format("%.3f of the peer's time", r["fused_over_peer"].get<double>())});
  for (const char* pass : {"forward", "backward"}) {
    if (!r.contains(pass)) continue;
    const auto number = [&](const char* key) { return r[pass][key].get<double>(); };
    rows.push_back(
        {name, dtype, pass, tools::format("%.3f", number("ms")),
         tools::format("%.1f", number("gb_s")), tools::format("%.0f %%", 100 * number("of_copy")),
         tools::format("%.1f", number("speedup")),
         tools::format("%.0f %% of %.1f", 100 * number("of_bytes_ratio"), number("bytes_ratio"))});
  }
  return rows;
}

void print_row(const std::vector<std::string>& cells) {
  constexpr int kWidths[] = {-56, -9, -9, 9, 7, 8, 8, 16};
  for (std::size_t i = 0; i < cells.size(); ++i) std::printf("%*s ", kWidths[i], cells[i].c_str());
  std::printf("\n");
  std::fflush(stdout);
}

std::vector<std::vector<OpCase>> all_cases() {
  return {
      test::adaln_cases(),
      test::rms_norm_cases(),
      test::rms_norm_rope_cases(),
      test::shard_copy_benchmarks(),
      test::dropout_cases(),
      test::lora_linear_cases(),
      test::gelu_cases("none"),
      test::gelu_cases("tanh"),
      test::swiglu_cases(),
      test::geglu_cases("none"),
      test::geglu_cases("tanh"),
      test::linear_cross_entropy_cases(),
      test::linear_log_probs_cases(),
      test::diffusion_input_cases(),
      test::diffusion_loss_cases(),
      test::patchify_cases(),
      test::fp8_quantize_cases(),
      test::fp8_linear_cases(),
      test::causal_conv_cases(),
      test::channel_norm_cases(),
      test::haar_patch_cases(),
      test::haar_unpatch_cases(),
      test::fsq_cases(),
  };
}

int run(int argc, char** argv) {
  cxxopts::Options options("bench-ops", "Times the fused operators on their benchmark cases.");
  options.add_options()("json", "one JSON object a line instead of a table")(
      "page", "also write PAGE.md and PAGE.json", cxxopts::value<std::string>())(
      "device", "cpu, or cuda for the GPU's kernels",
      cxxopts::value<std::string>()->default_value("cpu"))(
      "threads", "CPU threads", cxxopts::value<int>()->default_value("2"))(
      "filter", "cases whose name contains this", cxxopts::value<std::string>()->default_value(""))(
      "h,help", "this text");
  const auto args = options.parse(argc, argv);
  if (args.count("help")) {
    std::cout << options.help() << "\n";
    return 0;
  }
  const int threads = args["threads"].as<int>();
  torch::set_num_threads(threads);
  const bool json = args.count("json") > 0;
  const std::string where = args["device"].as<std::string>();
  require(where == "cpu" || where == "cuda", "--device: expected cpu or cuda, got ", where);
  require(where == "cpu" || torch::cuda::is_available(), "--device: there is no GPU here");
  device = at::Device(where);
  tools::Page page(
      device.is_cuda() ? "Fused operators on the GPU" : "Fused operators on the CPU",
      device.is_cuda() ? "build/cuda/bin/bench-ops --device cuda --page docs/benchmarks/ops_gpu"
                       : "build/cpu/bin/bench-ops --page docs/benchmarks/ops",
      "GB/s: what a perfect kernel would move, over the time; beside a copy between two "
      "tensors of the first input's size. x plain: the same formula operator by operator. "
      "Last column: that speed-up as a share of the ratio of bytes moved, counted over "
      "the operators that ran (views and allocations are free).",
      threads);
  page.set_columns(kColumns);
  if (!json) print_row(kColumns);
  for (const auto& list : all_cases())
    for (const OpCase& c : list) {
      if (!c.benchmark || c.name.find(args["filter"].as<std::string>()) == std::string::npos)
        continue;
      const bool fixed_dtypes = c.forward_passes > 0 && c.backward_passes == 0;
      for (const auto dtype : {at::kFloat, at::kBFloat16}) {
        if (fixed_dtypes && dtype != at::kFloat) continue;
        const Json row = bench(c, dtype);
        if (json) std::cout << row.dump() << std::endl;
        for (auto& cells : table_rows(row)) {
          if (!json) print_row(cells);
          page.add(std::move(cells), row);
        }
      }
    }
  if (args.count("page")) page.write(args["page"].as<std::string>());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("bench-ops", argc, argv, run);
}
