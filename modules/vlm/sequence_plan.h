#pragma once

// Which tokens of a call meet in attention, and where they stand. Made once a call, read by every
// layer.

#include <vector>

#include "modules/vlm/rope.h"

namespace cosmos::modules {

class KvCache;

/// One of three forms:
///   dense    B rows of L tokens, each seeing those before it; `mask` where rows are padded
///   packed   one row of many sequences, each causal in itself: `offsets` names their borders
///   cached   `cache` holds earlier tokens; with `offsets` the row fills it, without each row of
///            the batch brings its next token
struct SequencePlan {
  RopeTables rope;               ///< [B, L, head_dim / 2]
  Tensor mask = {};              ///< bool [B, 1, L, L], true = attend; undefined: causal
  std::vector<int64_t> offsets;  ///< cu_seqlens of the packed row
  KvCache* cache = nullptr;
};

/// The causal mask of padded rows: a token sees those before it, itself included, that are none of
/// the padding. Undefined where nothing is padded.  attention_mask: [B, L], 0 = padding, or
/// undefined -> bool [B, 1, L, L]
Tensor causal_padding_mask(const Tensor& attention_mask);

}  // namespace cosmos::modules
