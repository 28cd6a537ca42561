#pragma once

#include <ATen/ops/_chunk_cat.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/split_with_sizes_copy.h>

#include "ops/shard_copy/shard_copy.h"
#include "test/support/op_case.h"

namespace cosmos::test {

/// Rows [r c, (r + 1) c) of `full` that exist: rank r's shard.
inline at::Tensor shard_of(const at::Tensor& full, int64_t world, int64_t rank) {
  const int64_t n = full.size(0), rows = (n + world - 1) / world;
  const int64_t first = std::min(n, rank * rows);
  return full.narrow(0, first, std::min(rows, n - first));
}

inline std::vector<int64_t> split_sizes(at::TensorList full, int64_t world) {
  std::vector<int64_t> sizes;
  for (const at::Tensor& x : full) sizes.push_back(ops::padded_shard_numel(x.sizes(), world));
  return sizes;
}

/// The parameters of one DiT block of width 2048: ten matrices, their small modulation, norms.
inline std::vector<at::Tensor> dit_block(at::ScalarType dtype) {
  std::vector<at::Tensor> params;
  for (int i = 0; i < 6; ++i) params.push_back(at::randn({1024, 2048}).to(dtype));
  for (int i = 0; i < 2; ++i) params.push_back(at::randn({2048, 1024}).to(dtype));
  for (int i = 0; i < 6; ++i) params.push_back(at::randn({256, 2048}).to(dtype));
  for (int i = 0; i < 8; ++i) params.push_back(at::randn({128}).to(dtype));
  return params;
}

/// The copies around a DiT block's collectives, 4 ranks, against the foreach chain of ATen. The
/// first input is the flat buffer; buffers have no gradients.
inline std::vector<OpCase> shard_copy_benchmarks() {
  constexpr int64_t kWorld = 4;
  using Tensors = std::vector<at::Tensor>;
  const auto buffer_first = [](const at::Tensor& buffer, const Tensors& rest) {
    Tensors all{buffer};
    all.insert(all.end(), rest.begin(), rest.end());
    return all;
  };
  const auto rest = [](const Tensors& t) { return at::TensorList(t).slice(1); };
  const auto flat_size = [](const Tensors& full) {
    int64_t flat = 0;
    for (const int64_t size : split_sizes(full, kWorld)) flat += size;
    return flat;
  };
  const auto numels = [](at::TensorList list) {
    std::vector<int64_t> sizes;
    for (const at::Tensor& x : list) sizes.push_back(x.numel());
    return sizes;
  };
  const auto add = [](std::vector<OpCase>& cases, const char* name, const auto& inputs,
                      const auto& fused, const auto& eager, double passes) {
    OpCase c{name, inputs, {}, {}, passes, 0, /*benchmark=*/true};
    c.fused = [fused](const Tensors& t) { return fused(t), Tensors{t[0]}; };
    c.reference = [eager](const Tensors& t) { return eager(t), Tensors{t[0]}; };
    cases.push_back(c);
  };
  std::vector<OpCase> cases;
  add(
      cases, "all_gather_copy_in: float32 to bf16",
      [=] {
        const Tensors full = dit_block(at::kFloat);
        Tensors shards;
        for (const at::Tensor& x : full) shards.push_back(shard_of(x, kWorld, 0).clone());
        return buffer_first(at::empty({1, flat_size(full)}, at::kBFloat16), shards);
      },
      [=](const Tensors& t) { ops::all_gather_copy_in(rest(t), numels(rest(t)), 0, t[0]); },
      [=](const Tensors& t) {
        Tensors parts = t[0][0].split(numels(rest(t))), flat;
        for (const at::Tensor& x : rest(t)) flat.push_back(x.view(-1));
        at::_foreach_copy_(parts, flat);
      },
      3);
  add(
      cases, "all_gather_copy_out: bf16",
      [=] {
        const Tensors full = dit_block(at::kBFloat16);
        return buffer_first(at::zeros({kWorld, flat_size(full)}, at::kBFloat16), full);
      },
      [=](const Tensors& t) { ops::all_gather_copy_out(t[0], rest(t)); },
      [=](const Tensors& t) {
        Tensors out;
        for (const at::Tensor& x : rest(t)) out.push_back(x.view({kWorld, -1}));
        at::split_with_sizes_copy_out(out, t[0], split_sizes(rest(t), kWorld), 1);
      },
      2);
  add(
      cases, "reduce_scatter_copy_in: bf16 to float32",
      [=] {
        const Tensors full = dit_block(at::kBFloat16);
        return buffer_first(at::empty({kWorld, flat_size(full)}), full);
      },
      [=](const Tensors& t) { ops::reduce_scatter_copy_in(rest(t), t[0]); },
      [=](const Tensors& t) {
        const at::Tensor chunked = at::_chunk_cat(rest(t), 0, kWorld);
        t[0].copy_(chunked);
      },
      1.5);
  add(
      cases, "reduce_scatter_copy_out: scaled",
      [=] {
        const Tensors full = dit_block(at::kFloat);
        Tensors shards;
        for (const at::Tensor& x : full) shards.push_back(shard_of(x, kWorld, 0).clone());
        return buffer_first(at::randn({flat_size(full)}), shards);
      },
      [=](const Tensors& t) { ops::reduce_scatter_copy_out(t[0], numels(rest(t)), rest(t), 0.25); },
      [=](const Tensors& t) {
        const Tensors parts = (t[0] * 0.25).split(numels(rest(t)));
        std::size_t i = 0;
        for (const at::Tensor& x : rest(t)) x.view(-1).copy_(parts[i++]);
      },
      2);
  add(
      cases, "reduce_scatter_copy_out: accumulated",
      [=] {
        const Tensors full = dit_block(at::kFloat);
        Tensors shards;
        for (const at::Tensor& x : full) shards.push_back(shard_of(x, kWorld, 0).clone());
        return buffer_first(at::randn({flat_size(full)}), shards);
      },
      [=](const Tensors& t) {
        ops::reduce_scatter_copy_out(t[0], numels(rest(t)), rest(t), 0.25, true);
      },
      [=](const Tensors& t) {
        const Tensors parts = (t[0] * 0.25).split(numels(rest(t)));
        std::size_t i = 0;
        for (const at::Tensor& x : rest(t)) x.view(-1).add_(parts[i++]);
      },
      3);
  return cases;
}

}  // namespace cosmos::test
