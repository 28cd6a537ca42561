#include "modules/text/tokenizer_file.h"

#include <sstream>

#include "modules/core/fields.h"
#include "modules/hub/atomic_file.h"

namespace cosmos::modules {
namespace {

namespace fs = std::filesystem;
using namespace text;

constexpr const char* kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr uint64_t kMaxBytes = 256ull << 20;
constexpr int kT5Unknown = 2;         // transformers' T5Tokenizer asks for it there
constexpr int64_t kT5ExtraIds = 100;  // <extra_id_99> ... <extra_id_0> behind the pieces

Json read_if_there(const fs::path& path) {
  return is_file(path) ? read_json(path) : Json::object();
}

/// tokenizer_config.json with what special_tokens_map.json adds to it.
struct TokenizerConfig {
  Json json = Json::object();
  std::string where;

  explicit TokenizerConfig(const fs::path& dir) : where((dir / "tokenizer_config.json").string()) {
    json = read_if_there(dir / "special_tokens_map.json");
    json.update(read_if_there(dir / "tokenizer_config.json"));
  }

  /// Without the "Fast" that older versions append.
  std::string tokenizer_class() const {
    std::string name = text("tokenizer_class");
    if (name.ends_with("Fast")) name.resize(name.size() - 4);
    return name;
  }

  /// A text, or the content of an added token.
  static std::string content(const Json& value) {
    if (value.is_object()) return content(value.value("content", Json()));
    return value.is_string() ? value.get<std::string>() : "";
  }
  std::string text(const char* key) const { return content(json.value(key, Json())); }

  std::vector<std::string> texts(const char* key) const {
    std::vector<std::string> result;
    const auto found = json.find(key);
    if (found != json.end() && (found->is_array() || found->is_object()))
      for (const Json& item : *found) result.push_back(content(item));
    return result;
  }
};

/// Adds a special token unless it is there. Without an id it takes that of the vocabulary, or the
/// next free one.
void add_token(TokenizerParts& parts, AddedToken token) {
  int64_t next = static_cast<int64_t>(parts.model->ids().size());
  for (const AddedToken& other : parts.added) {
    if (other.content == token.content) return;
    next = std::max(next, other.id + 1);
  }
  const auto& ids = parts.model->ids();
  if (const auto found = ids.find(token.content); found != ids.end()) {
    token.id = found->second;
  } else if (token.id < 0) {
    token.id = next;
  }
  parts.added.push_back(std::move(token));
}

void add_special(TokenizerParts& parts, const std::string& content) {
  if (!content.empty()) add_token(parts, {.content = content, .special = true});
}

/// Special tokens of tokenizer_config.json, by id first, then by name.
void apply_config(TokenizerParts& parts, const TokenizerConfig& config) {
  std::map<int64_t, AddedToken> by_id;
  const Json decoder = config.json.value("added_tokens_decoder", Json::object());
  for (const auto& [key, value] : decoder.items()) {
    const std::string name = config.where + ": added_tokens_decoder." + key;
    require(
        !key.empty() && key.find_first_not_of("0123456789") == std::string::npos && key.size() < 9,
        name, ": expected an id");
    AddedToken token = parse_added_token(value, name);
    token.id = std::stoll(key);
    by_id[token.id] = token;
  }
  for (const auto& [id, token] : by_id) add_token(parts, token);
  for (const char* name : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
    const std::string content = config.text(name);
    if (!content.empty()) parts.special_names[name] = content;
    const auto found = parts.special_names.find(name);
    if (found != parts.special_names.end()) add_special(parts, found->second);
  }
  for (const char* list : {"additional_special_tokens", "extra_special_tokens"})
    for (const auto& content : config.texts(list)) add_special(parts, content);
  parts.pad_left = config.text("padding_side") == "left";
}

std::shared_ptr<const PreTokenizer> sequence(
    std::vector<std::shared_ptr<const PreTokenizer>> steps) {
  return std::make_shared<PreTokenizerSequence>(std::move(steps));
}

/// vocab.json + merges.txt: the files of GPT-2's and Qwen2's tokenizers.
TokenizerParts read_vocab_and_merges(const fs::path& dir, const TokenizerConfig& config) {
  const std::string kind = config.tokenizer_class(), where = (dir / "vocab.json").string();
  require(kind.empty() || kind == "Qwen2Tokenizer" || kind == "GPT2Tokenizer", config.where,
          ": tokenizer_class: vocab.json and merges.txt are read for Qwen2Tokenizer and "
          "GPT2Tokenizer, got ",
          kind, " (save it with a tokenizer.json)");
  const Json json = read_json(dir / "vocab.json");
  Bpe::Vocab vocab;
  for (const auto& [token, id] : json.items()) {
    require(id.is_number_integer(), where, ": \"", token, "\": expected an id, got ", describe(id));
    vocab.emplace_back(token, id.get<int64_t>());
  }
  Bpe::Merges merges;
  std::istringstream lines(read_file(dir / "merges.txt", kMaxBytes));
  int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty() || line.starts_with("#version")) continue;
    const auto space = line.find(' ');
    require(space != std::string::npos && line.find(' ', space + 1) == std::string::npos,
            (dir / "merges.txt").string(), ":", number, ": expected two tokens, got ", line);
    merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  TokenizerParts parts;
  parts.model = std::make_shared<Bpe>(vocab, merges, Bpe::Options{}, where);
  const bool prefix = config.json.value("add_prefix_space", Json(false)) == Json(true);
  const bool gpt2 = kind == "GPT2Tokenizer";
  if (!gpt2) parts.normalizer = std::make_shared<UnicodeNormalizer>(Form::kNFC);
  parts.pre_tokenizer = gpt2 ? sequence({std::make_shared<ByteLevelSplit>(prefix, true)})
                             : sequence({std::make_shared<SplitPattern>(
                                             Regex(kQwen2Pattern, "Qwen2Tokenizer"), true, false),
                                         std::make_shared<ByteLevelSplit>(prefix, false)});
  parts.special_names = {{"unk_token", "<|endoftext|>"}, {"eos_token", "<|endoftext|>"}};
  parts.special_names[gpt2 ? "bos_token" : "pad_token"] = "<|endoftext|>";
  return parts;
}

/// What transformers' T5Tokenizer makes of its pieces and character map.
TokenizerParts t5_parts(const Unigram::Pieces& pieces, std::shared_ptr<const Normalizer> normalizer,
                        const std::string& where) {
  TokenizerParts parts;
  parts.model = std::make_shared<Unigram>(pieces, kT5Unknown, where);
  parts.normalizer = std::move(normalizer);
  parts.pre_tokenizer =
      sequence({std::make_shared<WhitespaceSplit>(),
                std::make_shared<MetaspaceSplit>(kMetaspace, MetaspaceSplit::Prepend::kAlways,
                                                 /*split=*/true)});
  parts.decoder = TokenizerParts::Decoder::kMetaspace;
  parts.special_names = {{"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}};
  return parts;
}

TokenizerParts read_spiece(const fs::path& path, const TokenizerConfig& config) {
  const std::string where = path.string();
  const SentencePieceFile file = parse_sentencepiece(read_file(path, kMaxBytes), where);
  require(file.model_type == 1, where, ": expected a unigram model (model_type 1), got ",
          file.model_type);
  Unigram::Pieces pieces;
  for (const auto& piece : file.pieces) pieces.emplace_back(piece.text, piece.score);
  int64_t extra = kT5ExtraIds;
  if (config.json.contains("extra_ids"))
    read_value(config.json["extra_ids"], extra, config.where + ": extra_ids", UnknownKeys::kKeep);
  require(extra >= 0 && extra < 100000, config.where, ": extra_ids: expected 0 or more, got ",
          extra);
  for (int64_t i = extra - 1; i >= 0; --i)
    pieces.emplace_back("<extra_id_" + std::to_string(i) + ">", 0.0);
  std::shared_ptr<const Normalizer> normalizer;
  if (!file.charsmap.empty())
    normalizer = std::make_shared<CharsMapNormalizer>(file.charsmap, where);
  TokenizerParts parts = t5_parts(pieces, normalizer, where);
  for (const auto& piece : file.pieces)
    if (piece.kind == SentencePieceFile::Kind::kUserDefined)
      add_token(parts, {.content = piece.text});
  for (std::size_t id = file.pieces.size(); id < pieces.size(); ++id)
    add_special(parts, pieces[id].first);
  return parts;
}

/// T5's tokenizer.json: pieces and character map count, the rest is as T5Tokenizer has it.
TokenizerParts t5_from_json(const Json& json, const std::string& where) {
  Json plain = {{"model", json.at("model")},
                {"added_tokens", json.value("added_tokens", Json::array())},
                {"decoder", {{"type", "Metaspace"}}}};
  Json steps = json.value("normalizer", Json());
  if (steps.is_object() && steps.contains("normalizers")) steps = steps["normalizers"];
  for (const Json& step : steps.is_object() ? Json::array({steps}) : steps)
    if (step.is_object() && step.value("type", "") == "Precompiled") plain["normalizer"] = step;
  TokenizerParts parsed = parse_tokenizer_json(plain, where);
  TokenizerParts parts =
      t5_parts({{"<pad>", 0}, {"</s>", 0}, {"<unk>", 0}}, parsed.normalizer, where);
  parts.model = parsed.model;
  parts.added = parsed.added;
  return parts;
}

}  // namespace

TokenizerParts read_tokenizer(const fs::path& dir) {
  require_available();
  const TokenizerConfig config(dir);
  TokenizerParts parts;
  bool t5 = config.tokenizer_class() == "T5Tokenizer";
  if (is_file(dir / "tokenizer.json")) {
    const Json json = read_json(dir / "tokenizer.json");
    const std::string where = (dir / "tokenizer.json").string() + ": ";
    parts = t5 && json.contains("model") ? t5_from_json(json, where)
                                         : parse_tokenizer_json(json, where);
  } else if (is_file(dir / "vocab.json") && is_file(dir / "merges.txt")) {
    parts = read_vocab_and_merges(dir, config);
  } else if (is_file(dir / "spiece.model")) {
    parts = read_spiece(dir / "spiece.model", config);
    t5 = true;
  } else {
    fail(dir.string(), ": expected tokenizer.json, vocab.json and merges.txt, or spiece.model");
  }
  apply_config(parts, config);
  if (t5) {
    const auto& ids = parts.model->ids();
    const auto eos = ids.find(parts.special_names["eos_token"]);
    require(eos != ids.end(), dir.string(), ": has no token \"", parts.special_names["eos_token"],
            "\"");
    parts.suffix = {eos->second};
  }
  return parts;
}

}  // namespace cosmos::modules
