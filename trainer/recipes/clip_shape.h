#pragma once

// Whether a dataset's windows suit a tokenizer, asked before anything is trained.

#include <string>

#include "modules/tokenizer/video_tokenizer.h"

namespace cosmos::trainer {

/// Throws Error naming the setting when `data`'s num_frames, height and width, or buckets, are not
/// what the tokenizer can encode. Datasets without these settings are left to the first batch.
void require_clips_fit(const modules::VideoTokenizer& tokenizer, const Json& data,
                       const std::string& where);

}  // namespace cosmos::trainer
