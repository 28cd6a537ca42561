#include "modules/text/tokenizer.h"

#include <algorithm>

#include "modules/text/tokenizer_file.h"

namespace cosmos::modules {

using text::AddedToken;
using text::Stretch;

std::shared_ptr<const TextTokenizer> TextTokenizer::load(const std::filesystem::path& dir) {
  return std::make_shared<const TextTokenizer>(read_tokenizer(dir));
}

TextTokenizer::TextTokenizer(TokenizerParts parts)
    : parts_(std::move(parts)), tokens_(parts_.model->tokens()), ids_(parts_.model->ids()) {
  std::vector<AddedToken> raw, normalized;
  special_.resize(tokens_.size());
  for (AddedToken token : parts_.added) {
    if (token.id >= size()) {
      tokens_.resize(token.id + 1);
      special_.resize(token.id + 1);
    }
    tokens_[token.id] = token.content;
    special_[token.id] = token.special;
    ids_[token.content] = token.id;
    if (token.normalized && parts_.normalizer)
      token.content = parts_.normalizer->apply(token.content);
    (token.normalized ? normalized : raw).push_back(token);
  }
  raw_ = text::AddedTokenFinder(raw);
  normalized_ = text::AddedTokenFinder(normalized);
}

void TextTokenizer::encode_words(const std::string& text, bool start,
                                 std::vector<int64_t>& ids) const {
  if (!parts_.pre_tokenizer) return parts_.model->encode(text, ids);
  for (const auto& word : parts_.pre_tokenizer->split(text, start)) parts_.model->encode(word, ids);
}

std::vector<int64_t> TextTokenizer::encode(const std::string& text, bool special_tokens) const {
  text::require_utf8(text, "text");
  std::vector<int64_t> ids;
  if (special_tokens) ids = parts_.prefix;
  for (const Stretch& given : raw_.split(text)) {
    if (given.id >= 0) {
      ids.push_back(given.id);
      continue;
    }
    const bool start = given.text.data() == text.data();
    std::string plain(given.text);
    if (parts_.normalizer) plain = parts_.normalizer->apply(std::move(plain));
    for (const Stretch& stretch : normalized_.split(plain)) {
      if (stretch.id >= 0) {
        ids.push_back(stretch.id);
      } else {
        encode_words(std::string(stretch.text), start && stretch.text.data() == plain.data(), ids);
      }
    }
  }
  if (special_tokens) ids.insert(ids.end(), parts_.suffix.begin(), parts_.suffix.end());
  return ids;
}

TokenBatch TextTokenizer::encode_batch(const std::vector<std::string>& texts,
                                       const BatchOptions& options) const {
  const std::vector<int64_t> none;
  const auto& prefix = options.special_tokens ? parts_.prefix : none;
  const auto& suffix = options.special_tokens ? parts_.suffix : none;
  const auto around = static_cast<int64_t>(prefix.size() + suffix.size());
  require(!options.length || *options.length >= std::max<int64_t>(around, 1),
          "length: expected at least ", std::max<int64_t>(around, 1), ", got ",
          options.length.value_or(0));
  std::vector<std::vector<int64_t>> rows;
  std::size_t longest = 0;
  for (const auto& text : texts) {
    std::vector<int64_t> ids = encode(text, /*special_tokens=*/false);
    if (options.length)
      ids.resize(std::min(ids.size(), static_cast<std::size_t>(*options.length - around)));
    ids.insert(ids.begin(), prefix.begin(), prefix.end());
    ids.insert(ids.end(), suffix.begin(), suffix.end());
    longest = std::max(longest, ids.size());
    rows.push_back(std::move(ids));
  }
  const auto rows_count = static_cast<int64_t>(rows.size());
  const int64_t length = options.length.value_or(static_cast<int64_t>(longest));
  const bool padded = std::any_of(rows.begin(), rows.end(), [&](const auto& row) {
    return static_cast<int64_t>(row.size()) < length;
  });
  const auto pad = special("pad_token");
  require(!padded || pad, "the tokenizer has no pad_token to fill rows of different lengths with");
  TokenBatch batch{.input_ids = torch::full({rows_count, length}, pad.value_or(0), torch::kInt64),
                   .attention_mask = torch::zeros({rows_count, length}, torch::kInt64)};
  const bool left = options.pad_left.value_or(parts_.pad_left);
  for (int64_t row = 0; row < rows_count; ++row) {
    const auto& ids = rows[row];
    const auto count = static_cast<int64_t>(ids.size());
    const int64_t first = left ? length - count : 0;
    std::copy(ids.begin(), ids.end(), batch.input_ids[row].data_ptr<int64_t>() + first);
    batch.attention_mask[row].narrow(0, first, count).fill_(1);
  }
  return batch;
}

const std::string& TextTokenizer::token(int64_t id) const {
  require(id >= 0 && id < size() && !tokens_[id].empty(), "token ", id,
          ": not in the vocabulary of ", size());
  return tokens_[id];
}

std::optional<int64_t> TextTokenizer::find(const std::string& token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

int64_t TextTokenizer::id(const std::string& token) const {
  const auto found = find(token);
  require(found.has_value(), "the tokenizer has no token \"", token, "\"");
  return *found;
}

bool TextTokenizer::is_special(int64_t id) const {
  return id >= 0 && id < size() && special_[id];
}

std::optional<int64_t> TextTokenizer::special(const std::string& name) const {
  const auto found = parts_.special_names.find(name);
  return found == parts_.special_names.end() ? std::nullopt : find(found->second);
}

std::string TextTokenizer::token_bytes(int64_t id, bool first) const {
  if (id >= size() || (id >= 0 && tokens_[id].empty())) return "";
  const std::string& spelled = token(id);
  if (parts_.decoder == TokenizerParts::Decoder::kByteLevel) return text::from_byte_level(spelled);
  std::string bytes;
  for (std::size_t at = 0; at < spelled.size();) {
    const std::size_t length = text::sequence_length(spelled[at]);
    if (spelled.compare(at, length, text::kMetaspace) != 0) {
      bytes += spelled.substr(at, length);
    } else if (!first) {
      bytes += ' ';
    }
    at += length;
  }
  return bytes;
}

std::string TextTokenizer::decode(const std::vector<int64_t>& ids, bool skip_special) const {
  std::string bytes;
  bool first = true;
  for (const int64_t id : ids) {
    if (skip_special && is_special(id)) continue;
    bytes += token_bytes(id, first);
    first = false;
  }
  return text::replace_invalid(bytes);
}

std::string TokenStream::push(int64_t id) {
  if (skip_special_ && tokenizer_->is_special(id)) return "";
  held_ += tokenizer_->token_bytes(id, first_);
  first_ = false;
  const std::size_t settled = text::settled_bytes(held_);
  std::string out = text::replace_invalid(std::string_view(held_).substr(0, settled));
  held_.erase(0, settled);
  return out;
}

std::string TokenStream::finish() {
  return text::replace_invalid(std::exchange(held_, ""));
}

}  // namespace cosmos::modules
