#pragma once

// One list of cases per operator drives its test, its gradient check and its benchmark.

#include <cstdint>
#include <string>
#include <vector>

#include "test/support/gradcheck.h"

namespace cosmos::test {

struct OpCase {
  std::string name;
  /// float64 leaves, drawn after torch::manual_seed; the test casts them. Those that require grad
  /// are differentiated; the others keep their dtype (tables, masks).
  std::function<std::vector<at::Tensor>()> inputs;
  OpFunction fused;
  OpFunction reference;
  /// Passes over the first input that a perfect kernel makes (reads + writes), for the benchmark.
  double forward_passes = 0, backward_passes = 0;
  /// Large enough to time; tests skip these.
  bool benchmark = false;
  /// Small enough for finite differences.
  bool gradcheck = false;
  /// For operators that are arithmetic rather than memory traffic: what the benchmark holds their
  /// time against, in place of a copy. Takes the same inputs; need not use them all.
  OpFunction peer = nullptr;
};

inline at::Tensor leaf(at::IntArrayRef shape) {
  return at::randn(shape, at::kDouble).requires_grad_();
}

/// A chunk of a wider tensor: rows further apart than they are long.
inline at::Tensor strided_leaf(std::vector<int64_t> shape) {
  shape.back() *= 3;
  return at::randn(shape, at::kDouble).chunk(3, -1)[1].detach().requires_grad_();
}

/// A tensor whose last two dimensions are swapped in memory.
inline at::Tensor transposed_leaf(std::vector<int64_t> shape) {
  std::swap(shape[shape.size() - 1], shape[shape.size() - 2]);
  return at::randn(shape, at::kDouble).transpose(-1, -2).requires_grad_();
}

/// Compares fused on `device` with reference (in float64 on the CPU, on the same rounded inputs),
/// outputs and gradients, for `dtype`. "" or what differs.
inline std::string compare(const OpCase& test_case, at::ScalarType dtype,
                           at::Device device = at::kCPU) {
  torch::manual_seed(7);
  std::vector<at::Tensor> ours, exact;
  for (const at::Tensor& x : test_case.inputs()) {
    if (!x.requires_grad()) {
      ours.push_back(x.to(device));
      exact.push_back(x);
      continue;
    }
    // as_strided leaves stay strided: the operator must cope with them.
    const at::Tensor rounded = x.detach().to(dtype);
    ours.push_back(rounded.to(device).requires_grad_());
    exact.push_back(rounded.to(at::kDouble).requires_grad_());
  }
  const auto got = test_case.fused(ours), want = test_case.reference(exact);
  for (std::size_t i = 0; i < want.size(); ++i) {
    const std::string wrong = mismatch(got[i].cpu(), want[i], tolerance(dtype));
    if (!wrong.empty()) return "output " + std::to_string(i) + ": " + wrong;
  }
  std::vector<at::Tensor> our_leaves, exact_leaves;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    if (!ours[i].requires_grad()) continue;
    our_leaves.push_back(ours[i]);
    exact_leaves.push_back(exact[i]);
  }
  std::vector<at::Tensor> our_seeds, exact_seeds;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const at::Tensor seed = at::randn(want[i].sizes()).to(dtype);
    our_seeds.push_back(seed.to(device));
    exact_seeds.push_back(seed.to(at::kDouble));
  }
  const auto gradients = [](const auto& outputs, const auto& leaves, const auto& seeds) {
    return torch::autograd::grad(outputs, leaves, seeds, {}, false, /*allow_unused=*/true);
  };
  const auto our_grads = gradients(got, our_leaves, our_seeds);
  const auto exact_grads = gradients(want, exact_leaves, exact_seeds);
  for (std::size_t i = 0; i < our_grads.size(); ++i) {
    if (our_grads[i].defined() != exact_grads[i].defined())
      return "gradient " + std::to_string(i) +
             (our_grads[i].defined() ? ": too many" : ": missing");
    if (!our_grads[i].defined()) continue;
    const std::string wrong = mismatch(our_grads[i].cpu(), exact_grads[i], tolerance(dtype));
    if (!wrong.empty()) return "gradient " + std::to_string(i) + ": " + wrong;
  }
  return "";
}

}  // namespace cosmos::test
