// Packed attention of attention.h. On CUDA one launch of the flash kernel's packed form (bfloat16
// and float16); elsewhere one scaled_dot_product_attention a sequence.

#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/tensor.h>
#include <algorithm>
#include <torch/library.h>

#include "ops/attention/attention.h"
#include "ops/core/check.h"
#include "ops/core/path.h"

namespace cosmos::ops {
namespace {

using at::Tensor;
using Offsets = std::vector<int64_t>;

void check_offsets(const char* name, const Offsets& offsets, int64_t tokens) {
  require(!offsets.empty() && offsets.front() == 0 && offsets.back() == tokens &&
              std::is_sorted(offsets.begin(), offsets.end()),
          "varlen_attention: ", name, ": expected offsets that rise from 0 to ", tokens,
          " tokens, got ", at::IntArrayRef(offsets));
}

void check_arguments(const Tensor& q, const Tensor& k, const Tensor& v, const Offsets& q_offsets,
                     const Offsets& k_offsets) {
  dtype_of("varlen_attention", "q", q);
  check_alike("varlen_attention", "q", q, "k", k);
  check_same("varlen_attention", "k", k, "v", v);
  require(q.dim() == 3 && k.dim() == 3 && q.size(2) == k.size(2) && k.size(1) > 0 &&
              q.size(1) % k.size(1) == 0,
          "varlen_attention: expected q [N, heads, d] and k, v [M, kv_heads, d], heads a multiple ",
          "of kv_heads, got ", describe(q), " and ", describe(k));
  check_offsets("q_offsets", q_offsets, q.size(0));
  check_offsets("k_offsets", k_offsets, k.size(0));
  require(q_offsets.size() == k_offsets.size(), "varlen_attention: q_offsets name ",
          q_offsets.size() - 1, " sequences, k_offsets ", k_offsets.size() - 1);
}

Offsets lengths(const Offsets& offsets) {
  Offsets out;
  for (std::size_t s = 0; s + 1 < offsets.size(); ++s) out.push_back(offsets[s + 1] - offsets[s]);
  return out;
}

/// The flash kernel takes what it was built for; others go sequence by sequence.
bool flash_takes(const Tensor& q, const Offsets& q_lengths, const Offsets& k_lengths) {
  const auto empty = [](const Offsets& l) { return std::count(l.begin(), l.end(), 0) > 0; };
  return q.is_cuda() && (q.scalar_type() == at::kBFloat16 || q.scalar_type() == at::kHalf) &&
         q.size(2) % 8 == 0 && q.size(2) <= 256 && !empty(q_lengths) && !empty(k_lengths);
}

Tensor flash(const Tensor& q, const Tensor& k, const Tensor& v, const Offsets& q_offsets,
             const Offsets& k_offsets, int64_t q_longest, int64_t k_longest, bool causal,
             std::optional<double> scale) {
  const auto on_device = [&](const Offsets& offsets) {
    return at::tensor(offsets, at::kInt).to(q.device());
  };
  return std::get<0>(at::_flash_attention_forward(q, k, v, on_device(q_offsets),
                                                  on_device(k_offsets), q_longest, k_longest,
                                                  /*dropout_p=*/0.0, causal,
                                                  /*return_debug_mask=*/false, scale));
}

/// One sequence: q [n, heads, d], k and v [m, kv_heads, d].
Tensor sequence_attention(const Tensor& q, const Tensor& k, const Tensor& v, bool causal,
                          std::optional<double> scale) {
  const int64_t n = q.size(0), m = k.size(0);
  if (n == 0) return q;
  if (m == 0) return q.mul(0);  // sees nothing; still part of the graph
  std::optional<Tensor> mask;
  // The library's causal mask starts at the first key; ours ends at the last.
  if (causal && n != m) mask = at::full({n, m}, true, q.options().dtype(at::kBool)).tril(m - n);
  const auto heads_first = [](const Tensor& x) { return x.transpose(0, 1).unsqueeze(0); };
  Tensor out = at::scaled_dot_product_attention(heads_first(q), heads_first(k), heads_first(v),
                                                mask, 0.0, causal && n == m, scale,
                                                /*enable_gqa=*/q.size(1) != k.size(1));
  out = out.squeeze(0).transpose(0, 1);
  return mask && n > m ? out.masked_fill(mask->any(-1).logical_not().view({n, 1, 1}), 0) : out;
}

}  // namespace

Tensor varlen_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Offsets& q_offsets,
                        const Offsets& k_offsets, bool causal, std::optional<double> scale) {
  check_arguments(q, k, v, q_offsets, k_offsets);
  if (path() == Path::kReference)
    return reference::varlen_attention(q, k, v, q_offsets, k_offsets, causal, scale);
  const Offsets q_lengths = lengths(q_offsets), k_lengths = lengths(k_offsets);
  if (q_lengths.empty()) return q.mul(k.sum()).mul(v.sum());  // empty, and part of the graph
  if (flash_takes(q, q_lengths, k_lengths))
    return flash(q, k, v, q_offsets, k_offsets, *std::ranges::max_element(q_lengths),
                 *std::ranges::max_element(k_lengths), causal, scale);
  // split, not narrow: its backward is one concatenation.
  const auto qs = q.split_with_sizes(q_lengths), ks = k.split_with_sizes(k_lengths),
             vs = v.split_with_sizes(k_lengths);
  std::vector<Tensor> outs;
  for (std::size_t s = 0; s < qs.size(); ++s)
    outs.push_back(sequence_attention(qs[s], ks[s], vs[s], causal, scale));
  return at::cat(outs);
}

namespace {

Tensor varlen_attention_schema(const Tensor& q, const Tensor& k, const Tensor& v,
                               at::IntArrayRef q_offsets, at::IntArrayRef k_offsets, bool causal,
                               std::optional<double> scale) {
  return varlen_attention(q, k, v, q_offsets.vec(), k_offsets.vec(), causal, scale);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(cosmos, m) {
  m.def(
      "varlen_attention(Tensor q, Tensor k, Tensor v, int[] q_offsets, int[] k_offsets, "
      "bool causal=False, float? scale=None) -> Tensor",
      varlen_attention_schema);  // a composition: its parts bring autograd and Meta
}

}  // namespace cosmos::ops
