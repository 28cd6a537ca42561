#include "trainer/loop/machine_speeds.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <functional>
#include <torch/cuda.h>

#include "modules/hub/json_file.h"

namespace cosmos::trainer {
namespace {

/// The shortest of several runs, after one that warms up.
double seconds_of(torch::Device device, const std::function<void()>& fn) {
  double least = 1e30;
  for (int i = 0; i < 6; ++i) {
    if (device.is_cuda()) torch::cuda::synchronize(device.index());
    const auto begin = std::chrono::steady_clock::now();
    fn();
    if (device.is_cuda()) torch::cuda::synchronize(device.index());
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    if (i > 0) least = std::min(least, took.count());
  }
  return least;
}

/// Of an all-gather whose parts together have `bytes` bytes; the slowest rank's.
double gather_seconds(torch::Device device, const Group& world, int64_t bytes) {
  const auto options = torch::TensorOptions(torch::kUInt8).device(device);
  const Tensor part = torch::zeros({bytes / world.size()}, options);
  const Tensor whole = torch::empty({part.numel() * world.size()}, options);
  const double mine = seconds_of(device, [&] { world.all_gather(part, whole).wait(); });
  const Tensor all = torch::full({1}, mine, torch::TensorOptions(torch::kFloat64).device(device));
  world.all_reduce(all, Group::Reduce::kMax).wait();
  return all.item<double>();
}

LinkSpeed measure_link(torch::Device device, const Group& world) {
  constexpr int64_t kSmall = 4 << 10;
  const int64_t large = device.is_cpu() ? 64 << 20 : int64_t{512} << 20;
  const double n = static_cast<double>(world.size());
  const double doublings =
      static_cast<double>(std::bit_width(static_cast<uint64_t>(world.size() - 1)));
  const double small = gather_seconds(device, world, kSmall);
  const double big = gather_seconds(device, world, large) - small;
  return {.gb_per_s = static_cast<double>(large) * (n - 1) / n / std::max(big, 1e-9) * 1e-9,
          .latency_us = small / doublings * 1e6};
}

}  // namespace

MachineSpeeds read_speeds(const std::filesystem::path& file) {
  MachineSpeeds speeds;
  modules::read_fields(modules::read_json(file, {.comments = true}), speeds, file.string() + ": ",
                       modules::UnknownKeys::kRefuse);
  require(speeds.matmul_tflops > 0, file.string(), ": matmul_tflops: expected a number above 0, ",
          "got ", speeds.matmul_tflops, "; measure it with cosmos-train --measure-speeds FILE");
  require(speeds.memory_gb_per_s > 0, file.string(), ": memory_gb_per_s: expected a number above ",
          "0, got ", speeds.memory_gb_per_s);
  require(speeds.node_ranks > 0, file.string(), ": node_ranks: expected 1 or more, got ",
          speeds.node_ranks);
  return speeds;
}

MachineSpeeds measure_speeds(torch::Device device, torch::Dtype dtype, const Group* world,
                             int64_t node_ranks) {
  const torch::NoGradGuard no_grad;
  MachineSpeeds speeds{.name = device.str(), .node_ranks = node_ranks};
  const int64_t n = device.is_cpu() ? 1024 : 8192;
  const auto options = torch::TensorOptions(dtype).device(device);
  const Tensor a = torch::ones({n, n}, options), b = torch::ones({n, n}, options);
  Tensor product = torch::empty({n, n}, options);
  const double flops = 2 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
  speeds.matmul_tflops = flops / seconds_of(device, [&] { torch::mm_out(product, a, b); }) * 1e-12;
  const Tensor x = torch::zeros({int64_t{16} << 20}, torch::TensorOptions(device));
  const Tensor y = torch::empty_like(x);
  speeds.memory_gb_per_s =
      2 * static_cast<double>(x.nbytes()) / seconds_of(device, [&] { y.copy_(x); }) * 1e-9;
  if (!world || world->size() == 1) return speeds;
  (world->size() > node_ranks ? speeds.network : speeds.node) = measure_link(device, *world);
  return speeds;
}

}  // namespace cosmos::trainer
