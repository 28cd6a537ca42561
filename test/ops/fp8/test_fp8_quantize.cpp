// Quantisation to float8: the same bits as the plain formula with torch's casts.
#include "ops/core/error.h"
#include "test/ops/fp8/fp8_cases.h"
#include "test/support/op_checks.h"

using namespace cosmos;
using namespace cosmos::test;
using ops::Fp8Granularity;
using ops::Fp8Options;

namespace {

constexpr Fp8Granularity kAll[] = {Fp8Granularity::kTensor, Fp8Granularity::kRow,
                                   Fp8Granularity::k1x128, Fp8Granularity::k128x128};

template <typename Test>
void for_each_isa(Test test) {
  const ops::Isa best = ops::isa();
  for (const ops::Isa isa : {ops::Isa::kDefault, ops::Isa::kAvx2, ops::Isa::kAvx512}) {
    if (!ops::has_isa(isa)) continue;
    ops::set_isa(isa);
    INFO("instruction set " << static_cast<int>(isa));
    test();
  }
  ops::set_isa(best);
}

/// Equal bits, any NaN being equal to any other: "" or what differs.
std::string difference(const at::Tensor& got, const at::Tensor& want) {
  if (got.sizes() != want.sizes() || got.scalar_type() != want.scalar_type())
    return "shape or dtype";
  const at::Tensor g = got.to(at::kFloat).reshape(-1), w = want.to(at::kFloat).reshape(-1);
  const at::Tensor differ = at::logical_not(at::logical_or(
      at::logical_and(g == w, g.signbit() == w.signbit()), at::logical_and(g.isnan(), w.isnan())));
  if (!differ.any().item<bool>()) return "";
  const int64_t i = differ.nonzero()[0].item<int64_t>();
  return std::to_string(differ.sum().item<int64_t>()) + " differ, first at " + std::to_string(i) +
         ": " + std::to_string(g[i].item<float>()) + " for " + std::to_string(w[i].item<float>());
}

std::string difference(const ops::Fp8Tensor& got, const ops::Fp8Tensor& want) {
  std::string wrong = difference(got.values, want.values);
  if (!wrong.empty()) return "values: " + wrong;
  wrong = difference(got.scale, want.scale);
  if (!wrong.empty()) return "scale: " + wrong;
  wrong = difference(got.amax, want.amax);
  return wrong.empty() ? "" : "amax: " + wrong;
}

/// Plain, transposed and both of x against the formula.
void check_quantize(const at::Tensor& x, const Fp8Options& options) {
  const auto plain = ops::reference::fp8_quantize(x, options);
  CHECK(difference(ops::fp8_quantize(x, options), plain) == "");
  if (x.dim() == 0) return;
  const auto transposed = ops::reference::fp8_quantize(x, options, {}, true);
  CHECK(difference(ops::fp8_quantize(x, options, {}, true), transposed) == "");
  const auto pair = ops::fp8_quantize_pair(x, options);
  CHECK(difference({pair.values, pair.scale, pair.amax}, plain) == "");
  CHECK(difference({pair.values_t, pair.scale_t, transposed.amax}, transposed) == "");
}

/// Every float8 value, the points halfway between neighbours, and both floats beside those.
at::Tensor hard_values(at::ScalarType format) {
  const at::Tensor all = at::arange(256, at::kByte).view(format).to(at::kFloat);
  const at::Tensor finite = std::get<0>(all.masked_select(all.isfinite()).sort());
  const at::Tensor middle = (finite.slice(0, 1) + finite.slice(0, 0, -1)) / 2;
  const at::Tensor infinite = at::full({}, INFINITY);
  return at::cat({finite, middle, at::nextafter(middle, infinite), at::nextafter(middle, -infinite),
                  at::full({1}, -0.f)});
}

}  // namespace

TEST_CASE("float8 bits equal torch's casts for all values, midpoints and their neighbours",
          "[ops]") {
  for (const auto format : {at::kFloat8_e4m3fn, at::kFloat8_e5m2}) {
    const at::Tensor x = hard_values(format), one = at::ones({});
    const Fp8Options options{format};
    for_each_isa([&] {
      CHECK(difference(ops::fp8_quantize(x, options, one).values, x.to(format)) == "");
      const at::Tensor bytes = at::arange(256, at::kByte).view(format);
      CHECK(difference(ops::fp8_dequantize(bytes, one), bytes.to(at::kFloat)) == "");
    });
  }
}

TEST_CASE("float8 values beyond the range saturate, NaN stays NaN", "[ops]") {
  const float inf = INFINITY, nan = NAN;
  for (const auto format : {at::kFloat8_e4m3fn, at::kFloat8_e5m2}) {
    const float max = format == at::kFloat8_e4m3fn ? 448 : 57344;
    const at::Tensor x = at::tensor({max, max * 1.06f, -max * 1.2f, 3e38f, inf, -inf, nan, 1e-30f});
    const at::Tensor want = at::tensor({max, max, -max, max, max, -max, nan, 0.f});
    for_each_isa([&] {
      CHECK(difference(ops::fp8_quantize(x, {format}, at::ones({})).values.to(at::kFloat), want) ==
            "");
    });
  }
}

TEST_CASE("fp8_quantize equals the plain formula in every granularity, shape and dtype", "[ops]") {
  const std::vector<std::vector<int64_t>> shapes = {
      {},         {1},          {300},
      {1, 1},     {5, 7},       {128, 128},
      {129, 257}, {2, 67, 136}, {3, 1, 2, 1, 2, 1, 130},
      {0, 5},     {4, 0},       {1, 20001},
      {300, 8}};
  torch::manual_seed(2);
  for (const auto& shape : shapes)
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
      const at::Tensor x = (at::randn(shape, at::kDouble) * 3).to(dtype);
      for (const auto granularity : kAll) {
        if (shape.empty() && granularity != Fp8Granularity::kTensor) continue;
        for (const bool power_of_two : {false, true}) {
          const auto format = power_of_two ? at::kFloat8_e5m2 : at::kFloat8_e4m3fn;
          INFO(x.sizes() << " " << dtype << ", granularity " << static_cast<int>(granularity) << " "
                         << format);
          check_quantize(x, {format, granularity, power_of_two});
        }
      }
    }
}

TEST_CASE("fp8_quantize has the same bits in every instruction set", "[ops]") {
  torch::manual_seed(4);
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
    const at::Tensor x = (at::randn({131, 261}, at::kDouble) * 1e-3).to(dtype);
    for (const auto granularity : kAll)
      for_each_isa([&] { check_quantize(x, {at::kFloat8_e5m2, granularity}); });
  }
}

TEST_CASE("fp8_quantize reads views", "[ops]") {
  const at::Tensor x = at::randn({3, 40, 150}).transpose(0, 1).slice(2, 3, 147);
  for (const auto granularity : kAll) check_quantize(x, {at::kFloat8_e4m3fn, granularity});
}

TEST_CASE("fp8_quantize takes a given scale and still returns the amax", "[ops]") {
  torch::manual_seed(6);
  const at::Tensor x = at::randn({2, 131, 140});
  for (const auto granularity : kAll)
    for (const bool transposed : {false, true}) {
      const Fp8Options options{at::kFloat8_e4m3fn, granularity};
      const at::Tensor scale =
          at::rand_like(ops::fp8_quantize(x, options, {}, transposed).scale) * 0.004 + 0.001;
      const auto want = ops::reference::fp8_quantize(x, options, scale, transposed);
      INFO("granularity " << static_cast<int>(granularity) << ", transposed " << transposed);
      CHECK(difference(ops::fp8_quantize(x, options, scale, transposed), want) == "");
      CHECK(want.values.to(at::kFloat).abs().max().item<float>() == 448);  // some saturate
      if (transposed ||
          (granularity != Fp8Granularity::kTensor && granularity != Fp8Granularity::k128x128))
        continue;
      const auto pair = ops::fp8_quantize_pair(x, options, scale);
      CHECK(difference({pair.values, pair.scale, pair.amax}, want) == "");
      CHECK(
          at::equal(pair.values_t.to(at::kFloat), pair.values.to(at::kFloat).view({262, 140}).t()));
    }
}

TEST_CASE("fp8_quantize: zeros, tiny numbers, infinity and NaN", "[ops]") {
  for (const auto granularity : kAll) {
    const Fp8Options options{at::kFloat8_e4m3fn, granularity};
    const auto zero = ops::fp8_quantize(at::zeros({3, 130}), options);
    CHECK(at::equal(zero.scale, at::ones_like(zero.scale)));
    CHECK(zero.values.to(at::kFloat).abs().max().item<float>() == 0);
    const at::Tensor tiny = at::full({3, 130}, 1e-38f);
    CHECK(ops::fp8_quantize(tiny, options).scale.min().item<float>() == 0x1p-126f);
    for (const float bad : {INFINITY, -INFINITY, NAN}) {
      at::Tensor x = at::ones({3, 130});
      x[1][7] = bad;
      for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
        const at::Tensor narrow = x.to(dtype);
        check_quantize(narrow, options);
        const auto q = ops::fp8_quantize(narrow, options);
        // Its whole group is NaN: an overflow cannot be missed.
        CHECK(
            ops::fp8_dequantize(q.values, q.scale)[1].slice(0, 0, 128).isnan().all().item<bool>());
      }
    }
  }
}

TEST_CASE("fp8_dequantize undoes fp8_quantize as the formula says", "[ops]") {
  torch::manual_seed(8);
  const at::Tensor x = at::randn({2, 70, 264});
  for (const auto granularity : kAll)
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
      const auto q = ops::fp8_quantize(x, {at::kFloat8_e4m3fn, granularity});
      const at::Tensor back = ops::fp8_dequantize(q.values, q.scale, dtype);
      INFO("granularity " << static_cast<int>(granularity) << " " << dtype);
      CHECK(difference(back, ops::reference::fp8_dequantize(q.values, q.scale, dtype)) == "");
      CHECK(((back.to(at::kFloat) - x).norm() / x.norm()).item<float>() < 0.03);
    }
}

TEST_CASE("fp8_quantize refuses what does not fit, with expected and got", "[ops]") {
  const at::Tensor x = at::randn({4, 256});
  const Fp8Options row{at::kFloat8_e4m3fn, Fp8Granularity::kRow};
  CHECK_THROWS_WITH(ops::fp8_quantize(x.to(at::kInt), {}), Catch::Contains("x: expected float32"));
  CHECK_THROWS_WITH(ops::fp8_quantize(x, {at::kHalf}), Catch::Contains("dtype: expected float8"));
  CHECK_THROWS_WITH(ops::fp8_quantize(x, row, at::ones({4})),
                    Catch::Contains("scale: expected float32 [4, 1]") && Catch::Contains("[4]"));
  CHECK_THROWS_WITH(ops::fp8_quantize_pair(x, row, at::ones({4, 1})),
                    Catch::Contains("expected none for granularity row"));
  CHECK_THROWS_WITH(ops::fp8_quantize(at::ones({}), row), Catch::Contains("[..., columns]"));
  CHECK_THROWS_WITH(ops::fp8_dequantize(x, at::ones({})), Catch::Contains("values: expected"));
  CHECK_THROWS_WITH(ops::fp8_dequantize(ops::fp8_quantize(x, {}).values, at::ones({3, 1})),
                    Catch::Contains("scale: expected") && Catch::Contains("[3, 1]"));
  CHECK_THROWS_AS(ops::fp8_granularity("column"), Error);
}
