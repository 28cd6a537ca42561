#include "ops/fp8/fp8_driver.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "ops/core/check.h"
#include "ops/core/isa.h"
#include "ops/core/launch.h"
#include "ops/fp8/fp8_kernel.h"

namespace cosmos::ops {
COSMOS_SIMD_KERNEL(fp8_runs, Fp8Runs)
COSMOS_SIMD_KERNEL(fp8_tiles, Fp8Tiles)
COSMOS_SIMD_KERNEL(fp8_dequantize_runs, Fp8Dequantize)
}  // namespace cosmos::ops

namespace cosmos::ops::driver {
namespace {

using at::Tensor;

/// A tensor's own run: long enough to be worth a thread, short enough for many threads.
constexpr int64_t kTensorRun = 8192;

float* numbers(const Tensor& x) {
  return x.defined() ? x.mutable_data_ptr<float>() : nullptr;
}
uint8_t* bytes(const Tensor& x) {
  return x.defined() ? static_cast<uint8_t*>(x.mutable_data_ptr()) : nullptr;
}

Fp8Tensor allocate(const Tensor& x, const Fp8Options& o, bool transposed) {
  const auto scale = fp8_scale_sizes(x, o.granularity, transposed);
  const auto floats = x.options().dtype(at::kFloat);
  std::vector<c10::SymInt> sizes = x.sym_sizes().vec();
  if (transposed) sizes = {x.sym_size(-1), fp8_rows_of(x)};
  return {at::empty_symint(sizes, x.options().dtype(o.dtype)), at::empty_symint(scale, floats),
          at::empty_symint(scale, floats)};
}

/// One quantisation: x, what is wanted of it, and where that goes.
struct Job {
  const Tensor& x;  // contiguous
  const Fp8Options& options;
  Fp8Source source;
  std::optional<Tensor> given;
  Fp8Sides out;
};

Fp8Source source_of(const Tensor& x, const Fp8Options& o) {
  Fp8Source s{};
  s.dtype = dtype_of("fp8_quantize", "x", x);
  s.format = o.dtype == at::kFloat8_e4m3fn ? Fp8Format::kE4M3 : Fp8Format::kE5M2;
  s.power_of_two = o.power_of_two;
  s.columns = x.dim() > 0 ? x.size(-1) : 1;
  s.rows = x.numel() / s.columns;
  s.x = x.const_data_ptr();
  return s;
}

void run_runs(const Job& job, int64_t rows, int64_t columns, int64_t run, const Fp8Side& side) {
  Fp8Runs p{job.source, run, side};
  p.source.rows = rows;
  p.source.columns = columns;
  launch(job.x, p, rows * blocks_of(columns, run), grain_rows(run), ops::fp8_runs,
         COSMOS_CUDA_KERNEL(fp8_runs_cuda));
}

void run_tiles(const Job& job, bool square, const Fp8Side& side, const Fp8Side& transposed) {
  const Fp8Tiles p{job.source, square, side, transposed};
  const int64_t tiles =
      blocks_of(job.source.rows, kFp8Block) * blocks_of(job.source.columns, kFp8Block);
  launch(job.x, p, tiles, 1, ops::fp8_tiles, COSMOS_CUDA_KERNEL(fp8_tiles_cuda));
}

Tensor float_buffer(const Job& job, at::IntArrayRef sizes) {
  return at::empty(sizes, job.x.options().dtype(at::kFloat));
}

/// One scale for all: amax first unless the scale is given, then casts.
void quantize_tensor(Job& job) {
  const int64_t size = job.x.numel(), runs = blocks_of(size, kTensorRun);
  Fp8Tensor &plain = job.out.plain, &transposed = job.out.transposed;
  Fp8Tensor& first = plain.values.defined() ? plain : transposed;
  Fp8Side side;
  Tensor partial;
  if (!job.given) {
    partial = float_buffer(job, {runs});
    side.amax = numbers(partial);
    run_runs(job, 1, size, kTensorRun, side);
    first.amax = partial.amax();
    side.amax = nullptr;
    side.given = numbers(first.amax);
    side.given_is_amax = true;
  } else {
    partial = transposed.values.defined()
                  ? float_buffer(job, {blocks_of(job.source.rows, kFp8Block),
                                       blocks_of(job.source.columns, kFp8Block)})
                  : float_buffer(job, {runs});
    side.amax = numbers(partial);
    side.given = numbers(*job.given);
  }
  side.scale = numbers(first.scale);
  side.values = bytes(plain.values);
  Fp8Side other;
  other.values = bytes(transposed.values);
  if (other.values)
    run_tiles(job, /*square=*/true, side, other);
  else
    run_runs(job, 1, size, kTensorRun, side);
  if (job.given) first.amax = partial.amax();
  if (plain.values.defined() && transposed.values.defined()) transposed.scale = plain.scale.clone();
}

/// A side whose scales are [rows, blocks]; amax and scale are numbered alike.
Fp8Side block_side(const Fp8Tensor& out, const std::optional<Tensor>& given, int64_t blocks) {
  Fp8Side side;
  if (!out.values.defined()) return side;
  side.given = given ? given->const_data_ptr<float>() : nullptr;
  side.row_stride = blocks;
  side.block_stride = 1;
  side.scale = numbers(out.scale);
  side.amax = numbers(out.amax);
  side.values = bytes(out.values);
  return side;
}

/// One scale a row. The rows of x^T end only with x, so the amaxes of their pieces come first.
void quantize_rows(Job& job) {
  Fp8Tensor &plain = job.out.plain, &transposed = job.out.transposed;
  const int64_t rows = job.source.rows, columns = job.source.columns;
  if (!transposed.values.defined())
    return run_runs(job, rows, columns, columns, block_side(plain, job.given, 1));
  Tensor partial, partial_t;
  Fp8Side side, side_t;
  if (plain.values.defined()) {
    partial = float_buffer(job, {rows, blocks_of(columns, kFp8Block)});
    side.amax = numbers(partial);
  }
  partial_t = float_buffer(job, {columns, blocks_of(rows, kFp8Block)});
  side_t.amax = numbers(partial_t);
  run_tiles(job, /*square=*/false, side, side_t);
  const auto second = [&](Fp8Tensor& out, const Tensor& pieces) {
    if (!out.values.defined()) return Fp8Side{};
    out.amax = pieces.amax(-1).view(out.scale.sizes());
    Fp8Side s;
    s.given = numbers(job.given ? *job.given : out.amax);
    s.given_is_amax = !job.given;
    s.row_stride = 1;
    s.scale = numbers(out.scale);
    s.values = bytes(out.values);
    return s;
  };
  side = second(plain, partial);
  side_t = second(transposed, partial_t);
  run_tiles(job, /*square=*/false, side, side_t);
}

void quantize_1x128(Job& job) {
  const int64_t across = blocks_of(job.source.columns, kFp8Block);
  const int64_t down = blocks_of(job.source.rows, kFp8Block);
  const Fp8Tensor &plain = job.out.plain, &transposed = job.out.transposed;
  if (!transposed.values.defined())
    return run_runs(job, job.source.rows, job.source.columns, kFp8Block,
                    block_side(plain, job.given, across));
  run_tiles(job, /*square=*/false, block_side(plain, job.given, across),
            block_side(transposed, job.given, down));
}

/// x^T has the same blocks: its scales are the plain ones turned.
void quantize_128x128(Job& job) {
  Fp8Tensor &plain = job.out.plain, &transposed = job.out.transposed;
  const bool turned_only = !plain.values.defined();
  Fp8Tensor tiles = plain;
  if (turned_only) {
    const auto sizes = fp8_scale_sizes(job.x, job.options.granularity, false);
    tiles = {transposed.values, float_buffer(job, C10_AS_INTARRAYREF_SLOW(sizes)),
             float_buffer(job, C10_AS_INTARRAYREF_SLOW(sizes))};
    if (job.given) job.given = job.given->t().contiguous();
  }
  Fp8Side side = block_side(tiles, job.given, blocks_of(job.source.columns, kFp8Block)), other;
  if (turned_only) side.values = nullptr;
  other.values = bytes(transposed.values);
  run_tiles(job, /*square=*/true, side, other);
  if (!transposed.values.defined()) return;
  transposed.scale = tiles.scale.t().contiguous();
  transposed.amax = tiles.amax.t().contiguous();
}

}  // namespace

c10::SymInt fp8_rows_of(const Tensor& x) {
  c10::SymInt rows = 1;
  for (int64_t d = 0; d + 1 < x.dim(); ++d) rows *= x.sym_size(d);
  return rows;
}

std::vector<c10::SymInt> fp8_scale_sizes(const Tensor& x, Fp8Granularity granularity,
                                         bool transposed) {
  if (granularity == Fp8Granularity::kTensor) return {};
  const auto blocks = [](const c10::SymInt& size) { return (size + (kFp8Block - 1)) / kFp8Block; };
  const c10::SymInt rows = fp8_rows_of(x), columns = x.sym_size(-1);
  if (granularity == Fp8Granularity::k128x128)
    return transposed ? std::vector<c10::SymInt>{blocks(columns), blocks(rows)}
                      : std::vector<c10::SymInt>{blocks(rows), blocks(columns)};
  std::vector<c10::SymInt> sizes = x.sym_sizes().vec();
  if (transposed) sizes = {columns, rows};
  sizes.back() = granularity == Fp8Granularity::kRow ? c10::SymInt(1) : blocks(sizes.back());
  return sizes;
}

Fp8Granularity fp8_granularity_of(const char* op, const Tensor& values, const Tensor& scale) {
  if (scale.dim() == 0) return Fp8Granularity::kTensor;
  for (const auto g : {Fp8Granularity::kRow, Fp8Granularity::k1x128, Fp8Granularity::k128x128})
    if (values.dim() > 0 &&
        scale.sym_sizes() == c10::SymIntArrayRef(fp8_scale_sizes(values, g, false)))
      return g;
  fail(
      op,
      ": scale: expected a number, one for each row, or one for each block of 1x128 or 128x128 of ",
      describe(values), ", got ", describe(scale));
}

Fp8Sides fp8_quantize(const Tensor& x, const Fp8Options& options,
                      const std::optional<Tensor>& scale, bool plain, bool transposed) {
  Fp8Sides out;
  if (plain) out.plain = allocate(x, options, false);
  if (transposed) out.transposed = allocate(x, options, true);
  if (x.is_meta()) return out;
  if (x.numel() == 0) {
    for (const Fp8Tensor* side : {&out.plain, &out.transposed}) {
      if (!side->values.defined()) continue;
      side->scale.fill_(1);
      side->amax.zero_();
    }
    return out;
  }
  const Tensor rows = x.contiguous();
  Job job{rows, options, source_of(rows, options), {}, out};
  if (scale) job.given = scale->contiguous();
  switch (options.granularity) {
    case Fp8Granularity::kTensor:
      quantize_tensor(job);
      break;
    case Fp8Granularity::kRow:
      quantize_rows(job);
      break;
    case Fp8Granularity::k1x128:
      quantize_1x128(job);
      break;
    case Fp8Granularity::k128x128:
      quantize_128x128(job);
      break;
  }
  return job.out;
}

Tensor fp8_dequantize(const Tensor& values, const Tensor& scale, at::ScalarType dtype) {
  const Tensor out = at::empty_symint(values.sym_sizes(), values.options().dtype(dtype));
  if (values.is_meta() || values.numel() == 0) return out;
  const Tensor packed = values.contiguous(), factor = scale.contiguous();
  Fp8Dequantize p{};
  p.dtype = dtype_of("fp8_dequantize", "output", out);
  p.format = values.scalar_type() == at::kFloat8_e4m3fn ? Fp8Format::kE4M3 : Fp8Format::kE5M2;
  p.columns = values.dim() > 0 ? values.size(-1) : 1;
  p.rows = values.numel() / p.columns;
  p.run = kFp8Block;
  p.values = static_cast<const uint8_t*>(packed.const_data_ptr());
  p.scale = factor.const_data_ptr<float>();
  p.row_group = 1;
  p.out = out.mutable_data_ptr();
  switch (fp8_granularity_of("fp8_dequantize", values, scale)) {
    case Fp8Granularity::kTensor:
      p.columns *= p.rows;
      p.rows = 1;
      p.run = kTensorRun;
      break;
    case Fp8Granularity::kRow:
      p.run = p.columns;
      p.row_stride = 1;
      break;
    case Fp8Granularity::k128x128:
      p.row_group = kFp8Block;
      [[fallthrough]];
    case Fp8Granularity::k1x128:
      p.row_stride = blocks_of(p.columns, kFp8Block);
      p.block_stride = 1;
      break;
  }
  launch(values, p, p.rows * blocks_of(p.columns, p.run), grain_rows(p.run),
         ops::fp8_dequantize_runs, COSMOS_CUDA_KERNEL(fp8_dequantize_runs_cuda));
  return out;
}

}  // namespace cosmos::ops::driver
