#pragma once

#include <ATen/ops/gelu.h>
#include <ATen/ops/silu.h>

#include "ops/activation/activation.h"
#include "test/support/op_case.h"

namespace cosmos::test {

/// x, or gate and up, as tensors of their own.
struct ActivationShape {
  const char* what;
  std::vector<int64_t> shape;
  bool gradcheck = false;
  bool benchmark = false;
};

inline std::vector<ActivationShape> activation_shapes() {
  return {
      {"no dimensions", {}, true},
      {"one element", {1}, true},
      {"odd sizes", {3, 5, 7}, true},
      {"seven dimensions", {1, 2, 1, 2, 3, 2, 5}},
      {"longer than a unit of work", {2, 3, 4099}},
      {"empty batch", {0, 7, 16}},
      {"empty rows", {7, 0}},
  };
}

/// gate and up as the halves along `dim` of one tensor of this shape.
struct FusedShape {
  const char* what;
  std::vector<int64_t> shape;
  int64_t dim;
  bool gradcheck = false;
};

inline std::vector<FusedShape> fused_shapes() {
  return {
      {"halves of a row", {2, 5, 14}, -1, true},
      {"aligned halves of a row", {2, 5, 64}, -1},
      {"long halves of a row", {3, 2 * 5003}, -1},
      {"halves of one element", {5, 2}, -1},
      {"halves of the channels", {2, 6, 3, 5}, 1, true},
      {"halves of the batch", {4, 3, 5}, 0},
  };
}

/// An operator's function of {gate, up} and, in benchmarks, what PyTorch users write today.
using Gated = std::function<at::Tensor(const at::Tensor&, const at::Tensor&)>;

inline std::vector<OpCase> gated_cases(const std::string& name, const Gated& fused,
                                       const Gated& plain, const Gated& eager) {
  const auto of_two = [](const Gated& fn) -> OpFunction {
    return [fn](const auto& t) -> std::vector<at::Tensor> { return {fn(t[0], t[1])}; };
  };
  const auto of_parts = [](const Gated& fn, int64_t dim) -> OpFunction {
    return [fn, dim](const auto& t) -> std::vector<at::Tensor> {
      const auto parts = t[0].chunk(2, dim);
      return {fn(parts[0], parts[1])};
    };
  };
  std::vector<OpCase> cases;
  for (const ActivationShape& s : activation_shapes())
    cases.push_back({name + ": " + s.what,
                     [s] {
                       return std::vector<at::Tensor>{leaf(s.shape), leaf(s.shape)};
                     },
                     of_two(fused), of_two(plain), 3, 5, false, s.gradcheck});
  for (const FusedShape& s : fused_shapes())
    cases.push_back({name + ": " + s.what, [s] { return std::vector<at::Tensor>{leaf(s.shape)}; },
                     of_parts(fused, s.dim), of_parts(plain, s.dim), 1.5, 2.5, false, s.gradcheck});
  cases.push_back({name + ": vlm mlp",
                   [] {
                     return std::vector<at::Tensor>{leaf({1, 512, 18944}), leaf({1, 512, 18944})};
                   },
                   of_two(fused), of_two(eager), 3, 5, true});
  return cases;
}

inline std::vector<OpCase> swiglu_cases() {
  return gated_cases(
      "swiglu", [](const auto& g, const auto& u) { return ops::swiglu(g, u); },
      [](const auto& g, const auto& u) { return ops::reference::swiglu(g, u); },
      [](const auto& g, const auto& u) { return at::silu(g) * u; });
}

inline std::vector<OpCase> geglu_cases(const std::string& approximate) {
  return gated_cases(
      "geglu " + approximate,
      [=](const auto& g, const auto& u) { return ops::geglu(g, u, approximate); },
      [=](const auto& g, const auto& u) { return ops::reference::geglu(g, u, approximate); },
      [=](const auto& g, const auto& u) { return at::gelu(g, approximate) * u; });
}

inline std::vector<OpCase> gelu_cases(const std::string& approximate) {
  std::vector<ActivationShape> shapes = activation_shapes();
  shapes.push_back({"dit mlp", {1, 960, 2048}, false, true});
  shapes.push_back({"dit 2B mlp", {1, 2560, 8192}, false, true});
  const auto of_one = [=](auto fn) -> OpFunction {
    return [=](const auto& t) -> std::vector<at::Tensor> { return {fn(t[0])}; };
  };
  const OpFunction fused = of_one([=](const auto& x) { return ops::gelu(x, approximate); });
  const OpFunction plain =
      of_one([=](const auto& x) { return ops::reference::gelu(x, approximate); });
  const OpFunction eager = of_one([=](const auto& x) { return at::gelu(x, approximate); });
  std::vector<OpCase> cases;
  for (const ActivationShape& s : shapes)
    cases.push_back({"gelu " + approximate + ": " + s.what,
                     [s] { return std::vector<at::Tensor>{leaf(s.shape)}; }, fused,
                     s.benchmark ? eager : plain, 2, 3, s.benchmark, s.gradcheck});
  for (const auto& [what, input] : std::vector<std::pair<const char*, std::function<at::Tensor()>>>{
           {"transposed",
            [] {
              return transposed_leaf({3, 5, 7});
            }},
           {"chunk of a wider tensor", [] {
              return strided_leaf({2, 5, 7});
            }}})
    cases.push_back({"gelu " + approximate + ": " + what,
                     [input = input] { return std::vector<at::Tensor>{input()}; }, fused, plain, 2,
                     3, false, true});
  return cases;
}

}  // namespace cosmos::test
