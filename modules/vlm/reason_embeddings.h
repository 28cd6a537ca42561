#pragma once

// Text as Predict2.5 and Transfer2.5 read it: the hidden states of Cosmos Reason1's language model.

#include "modules/vlm/language_model.h"

namespace cosmos::modules {

/// The state behind every layer (the last one after the final norm), each token's normalised to
///   (x - mean(x)) / (std(x) + 1e-8),   std unbiased, over the width,
/// and concatenated.  input_ids: int64 [B, L], padded on the right; padding is read like any token,
/// as the released models were trained -> [B, L, layers D]. Without gradients: the encoder is
/// frozen. Source: cosmos-predict2.5, text encoder "reason1p1", full_concat.
Tensor reason_embeddings(LanguageModel& model, const Tensor& input_ids);

}  // namespace cosmos::modules
