#include "ops/dropout/dropout_driver.h"

#include <ATen/ops/empty.h>
#include <algorithm>
#include <cmath>

#include "ops/core/check.h"
#include "ops/core/isa.h"
#include "ops/core/launch.h"
#include "ops/dropout/dropout_kernel.h"

namespace cosmos::ops {
COSMOS_SIMD_KERNEL(dropout, Dropout)

DropoutRate::DropoutRate(double p)
    : threshold(static_cast<uint32_t>(std::min(std::round(p * 65536), 65535.0))),
      scale(65536.0 / (65536 - threshold)) {}

void check_dropout(const char* op, const at::Tensor& x, double p, at::IntArrayRef seeds,
                   at::IntArrayRef slice) {
  require(p >= 0 && p < 1, op, ": dropout: expected 0 <= p < 1, got ", p);
  const auto count = static_cast<int64_t>(seeds.size());
  require(count == 1 || (count > 1 && x.dim() > 0 && x.sym_size(0) == count), op,
          ": seeds: expected one, or one for each sample of x ", describe(x), ", got ", count);
  if (slice.empty()) return;
  require(slice.size() == 5 && x.dim() > 0, op, ": slice: expected 5 numbers or none, got ", slice);
  const int64_t rows = slice[0], features = x.size(-1);
  const int64_t all_rows = features > 0 ? x.numel() / features / count : 0;
  require(rows > 0 && all_rows % rows == 0 && slice[1] >= 0 && slice[1] + rows <= slice[2] &&
              slice[3] >= 0 && slice[3] + features <= slice[4],
          op, ": slice: expected {rows, first_row, whole_rows, first_feature, whole_features} ",
          "around x ", describe(x), ", got ", slice);
}

}  // namespace cosmos::ops

namespace cosmos::ops::driver {
namespace {

/// Of `count` elements, in rows of `features`.
DropoutRuns runs_of(int64_t count, int64_t features, at::IntArrayRef slice) {
  DropoutRuns runs{
      .count = 1, .length = count, .first = 0, .group = 1, .far = 0, .near = 0, .units = 0};
  if (!slice.empty()) {
    const int64_t rows = slice[0], whole_rows = slice[2], width = slice[4];
    const bool whole_features = features == width;
    runs.length = whole_features ? rows * width : features;
    runs.count = runs.length > 0 ? count / runs.length : 0;
    runs.first = slice[1] * width + slice[3];
    runs.group = whole_features ? 1 : rows;
    runs.far = whole_rows * width;
    runs.near = width;
  }
  const int64_t before = runs.count == 1 ? runs.first % kDropoutUnit : kDropoutUnit - 1;
  runs.units = (before + runs.length + kDropoutUnit - 1) / kDropoutUnit;
  return runs;
}

/// The launch for each sample; pointers of `all` are those of the whole tensors.
void drop_samples(const at::Tensor& like, Dropout all, double p, at::IntArrayRef seeds,
                  at::IntArrayRef slice) {
  const DropoutRate rate(p);
  all.dtype = dtype_of("seeded_dropout", "x", like);
  const int64_t count = like.numel() / static_cast<int64_t>(seeds.size());
  all.runs = runs_of(count, like.dim() > 0 ? like.size(-1) : 1, slice);
  all.threshold = rate.threshold;
  all.scale = rate.scale;
  const int64_t units = all.runs.count * all.runs.units;
  const int64_t bytes = count * like.element_size();
  const auto offset = [](auto* data, int64_t by) {
    using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(data)>>,
                                    const char, char>;
    return data ? static_cast<Byte*>(data) + by : nullptr;
  };
  for (std::size_t s = 0; s < seeds.size(); ++s) {
    const int64_t by = static_cast<int64_t>(s) * bytes;
    Dropout one = all;
    one.seed = static_cast<uint64_t>(seeds[s]);
    one.x = offset(all.x, by);
    one.out = offset(all.out, by);
    one.update = offset(all.update, by);
    one.sum = offset(all.sum, by);
    launch(like, one, units, grain_rows(kDropoutUnit), ops::dropout,
           COSMOS_CUDA_KERNEL(dropout_cuda));
  }
}

}  // namespace

at::Tensor seeded_dropout(const at::Tensor& x, double p, at::IntArrayRef seeds,
                          at::IntArrayRef slice) {
  const at::Tensor out = at::empty_symint(x.sym_sizes(), x.options());
  if (x.is_meta()) return out;
  const at::Tensor rows = x.contiguous();
  Dropout params{};
  params.x = rows.const_data_ptr();
  params.out = out.mutable_data_ptr();
  drop_samples(x, params, p, seeds, slice);
  return out;
}

at::Tensor seeded_dropout_add_(const at::Tensor& sum, const at::Tensor& update, const at::Tensor& x,
                               double p, at::IntArrayRef seeds, at::IntArrayRef slice) {
  Dropout params{};
  params.update = update.const_data_ptr();
  params.sum = sum.mutable_data_ptr();
  at::Tensor rows, out;
  if (x.defined()) {
    rows = x.contiguous();
    out = at::empty(x.sizes(), x.options());
    params.x = rows.const_data_ptr();
    params.out = out.mutable_data_ptr();
  }
  drop_samples(sum, params, p, seeds, slice);
  return out;
}

}  // namespace cosmos::ops::driver
