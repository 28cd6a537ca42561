#pragma once

#include <ATen/ops/linear.h>
#include <map>
#include <memory>

#include "ops/lora_linear/lora_linear.h"
#include "test/support/op_case.h"

namespace cosmos::test {

enum class Use { kTest, kGradcheck, kBenchmark };
enum class Base { kFrozen, kFrozenWithoutBias, kTrained, kTrainedWithoutBias };

struct LoraShape {
  const char* what;
  std::vector<int64_t> x;
  int64_t out, rank;
  Use use = Use::kTest;
  Base base = Base::kFrozen;
  std::vector<int64_t> seeds = {};  ///< none: no dropout
  bool strided = false;
  std::vector<int64_t> slice = {};

  bool bias() const { return base == Base::kFrozen || base == Base::kTrained; }
  bool trained() const { return base == Base::kTrained || base == Base::kTrainedWithoutBias; }
};

/// A linear that takes no gradient, in whatever dtype it meets; drawn in bfloat16, so that every
/// dtype holds the same numbers.
class FrozenLinear {
 public:
  FrozenLinear(int64_t in, int64_t out, bool bias) : in_(in), out_(out), has_bias_(bias) {}

  const at::Tensor& weight(at::ScalarType dtype) { return in(dtype).first; }
  const at::Tensor& bias(at::ScalarType dtype) { return in(dtype).second; }

 private:
  using Pair = std::pair<at::Tensor, at::Tensor>;

  const Pair& in(at::ScalarType dtype) {
    Pair& pair = cast_[dtype];
    if (pair.first.defined()) return pair;
    if (dtype == at::kBFloat16) {
      const auto options = at::TensorOptions().dtype(dtype);
      pair.first = at::randn({out_, in_}, options);
      if (has_bias_) pair.second = at::randn({out_}, options);
    } else {
      const Pair& drawn = in(at::kBFloat16);
      pair.first = drawn.first.to(dtype);
      if (has_bias_) pair.second = drawn.second.to(dtype);
    }
    return pair;
  }

  int64_t in_, out_;
  bool has_bias_;
  std::map<at::ScalarType, Pair> cast_;
};

using LinearFunction = at::Tensor (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                      const ops::LoraUpdate&);

/// Inputs: x, lora_a, lora_b, and weight and bias where they are trained.
inline OpFunction lora_function(LinearFunction linear, const LoraShape& s,
                                const std::shared_ptr<FrozenLinear>& frozen) {
  return [=](const auto& t) -> std::vector<at::Tensor> {
    const at::ScalarType dtype = t[0].scalar_type();
    return {linear(t[0], s.trained() ? t[3] : frozen->weight(dtype),
                   !s.trained() ? frozen->bias(dtype)
                   : s.bias()   ? t[4]
                                : at::Tensor(),
                   {t[1], t[2], 0.7, s.seeds.empty() ? 0 : 0.25, s.seeds, s.slice})};
  };
}

inline std::vector<OpCase> lora_linear_cases() {
  using enum Use;
  using enum Base;
  const std::vector<LoraShape> shapes = {
      {"one element", {1, 1}, 1, 1, kGradcheck},
      {"a vector", {5}, 3, 2, kGradcheck},
      {"without bias", {2, 3, 5}, 4, 2, kGradcheck, kFrozenWithoutBias},
      {"trained base", {2, 3, 5}, 4, 2, kGradcheck, kTrained},
      {"trained base without bias", {7, 5}, 4, 2, kGradcheck, kTrainedWithoutBias},
      {"strided", {2, 4, 6}, 5, 3, kGradcheck, kFrozen, {}, true},
      {"dropout", {2, 3, 5}, 4, 2, kGradcheck, kFrozen, {1, 2}},
      {"dropout shared, strided", {2, 3, 5}, 4, 2, kGradcheck, kFrozen, {1}, true},
      {"dropout of a slice", {2, 3, 5}, 4, 2, kGradcheck, kFrozen, {1, 2}, false, {3, 3, 6, 5, 15}},
      {"rank above the widths", {3, 4}, 2, 9},
      {"rank 16", {2, 33, 70}, 65, 16},
      {"wide, dropout", {3, 67, 130}, 300, 8, kTest, kFrozen, {3, 4, 5}},
      {"seven dimensions", {1, 2, 1, 2, 3, 2, 6}, 8, 4},
      {"empty batch", {0, 5, 16}, 8, 4},
      {"empty batch, dropout", {0, 16}, 8, 4, kTest, kTrained, {1}},
      {"512 to 512, rank 8", {1, 960, 512}, 512, 8, kBenchmark},
      {"512 to 512, rank 16", {1, 960, 512}, 512, 16, kBenchmark},
      {"512 to 512, rank 32", {1, 960, 512}, 512, 32, kBenchmark},
      {"512 to 2048, rank 16", {1, 960, 512}, 2048, 16, kBenchmark},
      {"2048 to 512, rank 16", {1, 960, 2048}, 512, 16, kBenchmark},
      {"2048 to 2048, rank 16", {1, 2560, 2048}, 2048, 16, kBenchmark},
      {"2048 to 2048, dropout", {1, 2560, 2048}, 2048, 16, kBenchmark, kFrozen, {1}},
      {"2048 to 8192, rank 32", {1, 2560, 2048}, 8192, 32, kBenchmark},
  };
  std::vector<OpCase> cases;
  for (const LoraShape& s : shapes) {
    const auto frozen = std::make_shared<FrozenLinear>(s.x.back(), s.out, s.bias());
    cases.push_back({.name = std::string("lora_linear: ") + s.what,
                     .inputs =
                         [s] {
                           const int64_t in = s.x.back();
                           std::vector<at::Tensor> inputs = {
                               s.strided ? strided_leaf(s.x) : leaf(s.x), leaf({s.rank, in}),
                               leaf({s.out, s.rank})};
                           if (s.trained()) inputs.push_back(leaf({s.out, in}));
                           if (s.trained() && s.bias()) inputs.push_back(leaf({s.out}));
                           return inputs;
                         },
                     .fused = lora_function(ops::lora_linear, s, frozen),
                     .reference = lora_function(ops::reference::lora_linear, s, frozen),
                     .benchmark = s.use == kBenchmark,
                     .gradcheck = s.use == kGradcheck,
                     .peer = [frozen](const auto& t) -> std::vector<at::Tensor> {
                       const at::ScalarType dtype = t[0].scalar_type();
                       return {at::linear(t[0], frozen->weight(dtype), frozen->bias(dtype))};
                     }});
  }
  return cases;
}

}  // namespace cosmos::test
