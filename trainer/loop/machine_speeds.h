#pragma once

// How fast a machine multiplies, and its ranks exchange: what the simulation of step times starts
// from (step_time.h). A JSON file, measured on the machine itself or written by hand.

#include <cstdint>
#include <filesystem>
#include <string>

#include "modules/core/fields.h"
#include "trainer/parallel/group.h"

namespace cosmos::trainer {

/// A collective of n ranks takes latency * ceil(log2 n) + bytes * (n - 1) / n / bandwidth, where
/// `bytes` are all ranks' parts: the bus bandwidth that nccl-tests prints. An all-reduce: twice.
struct LinkSpeed {
  double gb_per_s = 0;  ///< 0: not known
  double latency_us = 0;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("gb_per_s", gb_per_s, "bus bandwidth of large collectives, 1e9 bytes a second");
    v("latency_us", latency_us, "of a small one, a doubling of ranks");
  }
};

struct MachineSpeeds {
  std::string name;
  double matmul_tflops = 0;
  double memory_gb_per_s = 0;
  double memory_gb = 0;
  int64_t node_ranks = 8;
  LinkSpeed node, network;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("name", name, "of the machine, for the table");
    v("matmul_tflops", matmul_tflops, "of large products in the training's dtype, one rank");
    v("memory_gb_per_s", memory_gb_per_s, "of one rank's memory, read and written");
    v("memory_gb", memory_gb, "of one rank; 0: not known");
    v("node_ranks", node_ranks, "ranks of one machine");
    v("node", node, "between ranks of one machine");
    v("network", network,
      "between ranks of several machines, for a group that has all ranks of each; one that has a "
      "part of them gets that part");
  }
};

/// Throws Error naming the file and the setting.
MachineSpeeds read_speeds(const std::filesystem::path& file);

/// Measures products and memory of `device`, and all-gathers of `world` (null: one rank), in a few
/// seconds; all ranks call it. What was not measured is 0.
MachineSpeeds measure_speeds(torch::Device device, torch::Dtype dtype, const Group* world,
                             int64_t node_ranks);

}  // namespace cosmos::trainer
