#include "modules/vlm/kv_cache.h"

#include <algorithm>

#include "ops/attention/attention.h"

namespace cosmos::modules {
namespace {

// bool [rows, 1, 1, longest], true for the tokens that a row holds; undefined when all are full.
Tensor length_mask(const std::vector<int64_t>& lengths, int64_t longest, torch::Device device) {
  if (*std::min_element(lengths.begin(), lengths.end()) == longest) return {};
  const Tensor held = torch::tensor(lengths, torch::kInt64).to(device).unsqueeze(1);
  const Tensor place = torch::arange(longest, torch::TensorOptions(torch::kInt64).device(device));
  return place.lt(held).view({-1, 1, 1, longest});
}

}  // namespace

KvCache::KvCache(int64_t layers, int64_t rows, int64_t capacity)
    : layers_(layers), lengths_(rows, 0), capacity_(std::max<int64_t>(capacity, 1)) {}

void KvCache::reserve(Layer& layer, const Tensor& like, int64_t tokens) {
  const auto rows = static_cast<int64_t>(lengths_.size());
  while (capacity_ < tokens) capacity_ *= 2;
  if (layer.keys.defined() && layer.keys.size(2) >= tokens) return;
  for (Tensor* held : {&layer.keys, &layer.values}) {
    // Zeros, not uninitialised: a masked place still enters a product with weight 0.
    Tensor grown = torch::zeros({rows, like.size(2), capacity_, like.size(3)}, like.options());
    if (held->defined()) grown.narrow(2, 0, held->size(2)).copy_(*held);
    *held = grown;
  }
}

Tensor KvCache::fill(Layer& layer, const Tensor& q, const Tensor& k, const Tensor& v,
                     const std::vector<int64_t>& offsets) {
  require(offsets.size() == lengths_.size() + 1, "KvCache: expected ", lengths_.size(),
          " sequences, got ", offsets.size() - 1);
  int64_t longest = 0;
  for (std::size_t r = 0; r + 1 < offsets.size(); ++r)
    longest = std::max(longest, offsets[r + 1] - offsets[r]);
  reserve(layer, k, longest);
  for (std::size_t r = 0; r + 1 < offsets.size(); ++r) {
    const int64_t begin = offsets[r], count = offsets[r + 1] - begin;
    const auto row = static_cast<int64_t>(r);
    layer.keys[row].narrow(1, 0, count).copy_(k[0].narrow(0, begin, count).transpose(0, 1));
    layer.values[row].narrow(1, 0, count).copy_(v[0].narrow(0, begin, count).transpose(0, 1));
  }
  return ops::varlen_attention(q[0], k[0], v[0], offsets, offsets, /*causal=*/true).unsqueeze(0);
}

Tensor KvCache::extend(Layer& layer, const Tensor& q, const Tensor& k, const Tensor& v) {
  require(q.size(1) == 1, "KvCache: expected the next token of every row, got ", q.size(1));
  std::vector<int64_t> lengths = lengths_;
  for (auto& length : lengths) ++length;
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  reserve(layer, k, longest);
  for (std::size_t r = 0; r < lengths.size(); ++r) {
    const auto row = static_cast<int64_t>(r);
    layer.keys[row].select(1, lengths_[r]).copy_(k[row][0]);
    layer.values[row].select(1, lengths_[r]).copy_(v[row][0]);
  }
  // The queries that share a key head stand as tokens of one sequence: no key is repeated.
  const int64_t rows = q.size(0), kv_heads = k.size(2), d = q.size(3);
  const Tensor grouped = q.reshape({rows, kv_heads, -1, d});
  const Tensor mask = length_mask(lengths, longest, q.device());
  const Tensor out = torch::scaled_dot_product_attention(
      grouped, layer.keys.narrow(2, 0, longest), layer.values.narrow(2, 0, longest),
      mask.defined() ? std::optional<Tensor>(mask) : std::nullopt);
  return out.reshape({rows, 1, -1, d});
}

Tensor KvCache::attend(int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v,
                       const std::vector<int64_t>& offsets) {
  Layer& held = layers_.at(layer);
  return offsets.empty() ? extend(held, q, k, v) : fill(held, q, k, v, offsets);
}

void KvCache::advance(const std::vector<int64_t>& offsets) {
  for (std::size_t r = 0; r < lengths_.size(); ++r)
    lengths_[r] = offsets.empty() ? lengths_[r] + 1 : offsets[r + 1] - offsets[r];
}

void KvCache::keep_rows(const Tensor& rows) {
  for (auto& layer : layers_) {
    if (!layer.keys.defined()) continue;
    layer.keys = layer.keys.index_select(0, rows);
    layer.values = layer.values.index_select(0, rows);
  }
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < rows.numel(); ++i)
    lengths.push_back(lengths_[static_cast<std::size_t>(rows[i].item<int64_t>())]);
  lengths_ = lengths;
}

}  // namespace cosmos::modules
