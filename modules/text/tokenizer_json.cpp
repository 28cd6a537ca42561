// tokenizer.json: the serialised form of Hugging Face's tokenizers library.

#include "modules/core/fields.h"
#include "modules/text/tokenizer_file.h"

namespace cosmos::modules {
namespace {

using namespace text;

template <typename T>
T value_or(const Json& json, const char* key, T otherwise, const std::string& where) {
  const auto found = json.find(key);
  if (found != json.end() && !found->is_null())
    read_value(*found, otherwise, join_path(where, key), UnknownKeys::kKeep);
  return otherwise;
}

std::string type_of(const Json& json, const std::string& where) {
  require(json.is_object(), where, ": expected an object, got ", describe(json));
  return value_or<std::string>(json, "type", "", where);
}

/// The entries of a Sequence, or the one that stands in its place; none for null.
std::vector<std::pair<const Json*, std::string>> steps_of(const Json& json, const char* part,
                                                          const char* list,
                                                          const std::string& where) {
  const auto found = json.find(part);
  if (found == json.end() || found->is_null()) return {};
  const std::string path = join_path(where, part);
  if (type_of(*found, path) != "Sequence") return {{&*found, path}};
  std::vector<std::pair<const Json*, std::string>> steps;
  const auto items = found->find(list);
  require(items != found->end() && items->is_array(), path, ": expected a list \"", list, "\"");
  for (std::size_t i = 0; i < items->size(); ++i)
    steps.emplace_back(&(*items)[i], path + "." + list + "[" + std::to_string(i) + "]");
  return steps;
}

std::string decode_base64(const std::string& text, const std::string& where) {
  static const std::string kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int held = 0;
  for (const char c : text) {
    if (c == '=') break;
    const auto digit = kAlphabet.find(c);
    require(digit != std::string::npos, where, ": not base64");
    bits = bits << 6 | static_cast<uint32_t>(digit);
    if ((held += 6) < 8) continue;
    held -= 8;
    bytes += static_cast<char>(bits >> held & 0xFF);
  }
  return bytes;
}

std::shared_ptr<const Normalizer> make_normalizer(const Json& json, const std::string& where) {
  const std::string type = type_of(json, where);
  if (type == "NFC") return std::make_shared<UnicodeNormalizer>(Form::kNFC);
  if (type == "NFD") return std::make_shared<UnicodeNormalizer>(Form::kNFD);
  if (type == "NFKC") return std::make_shared<UnicodeNormalizer>(Form::kNFKC);
  if (type == "NFKD") return std::make_shared<UnicodeNormalizer>(Form::kNFKD);
  if (type == "Precompiled") {
    const std::string path = join_path(where, "precompiled_charsmap");
    const auto map = value_or<std::string>(json, "precompiled_charsmap", "", where);
    return std::make_shared<CharsMapNormalizer>(decode_base64(map, path), where);
  }
  fail(where, ": expected NFC, NFD, NFKC, NFKD or Precompiled, got ", type);
}

/// A pattern that matches `text`.
std::string quoted(const std::string& text) {
  std::string pattern;
  for (const char c : text) {
    const bool plain = c < 0 || std::isalnum(static_cast<unsigned char>(c));
    pattern += plain ? std::string(1, c) : std::string("\\") + c;
  }
  return pattern;
}

std::shared_ptr<const PreTokenizer> make_split(const Json& json, const std::string& where) {
  const Json pattern = json.value("pattern", Json());
  require(pattern.is_object() && pattern.size() == 1 && pattern.begin()->is_string() &&
              (pattern.contains("Regex") || pattern.contains("String")),
          where, ".pattern: expected {\"Regex\": ...} or {\"String\": ...}");
  const std::string text = pattern.begin()->get<std::string>();
  const auto behavior = value_or<std::string>(json, "behavior", "", where);
  require(behavior == "Isolated" || behavior == "Removed", where,
          ".behavior: expected Isolated or Removed, got ", behavior);
  return std::make_shared<SplitPattern>(
      Regex(pattern.contains("Regex") ? text : quoted(text), where), behavior == "Isolated",
      value_or(json, "invert", false, where));
}

std::shared_ptr<const PreTokenizer> make_pre_tokenizer(const Json& json, const std::string& where) {
  const std::string type = type_of(json, where);
  if (type == "Split") return make_split(json, where);
  if (type == "ByteLevel")
    return std::make_shared<ByteLevelSplit>(value_or(json, "add_prefix_space", true, where),
                                            value_or(json, "use_regex", true, where));
  if (type == "WhitespaceSplit") return std::make_shared<WhitespaceSplit>();
  if (type == "Metaspace") {
    const bool prefix = value_or(json, "add_prefix_space", true, where);
    const auto scheme =
        value_or<std::string>(json, "prepend_scheme", prefix ? "always" : "never", where);
    require(scheme == "always" || scheme == "first" || scheme == "never", where,
            ".prepend_scheme: expected always, first or never, got ", scheme);
    using Prepend = MetaspaceSplit::Prepend;
    const auto mark = value_or<std::string>(json, "replacement", kMetaspace, where);
    require(mark == kMetaspace, where, ".replacement: expected U+2581, got ", mark);
    return std::make_shared<MetaspaceSplit>(mark,
                                            scheme == "always"  ? Prepend::kAlways
                                            : scheme == "first" ? Prepend::kFirst
                                                                : Prepend::kNever,
                                            value_or(json, "split", true, where));
  }
  fail(where, ": expected Split, ByteLevel, WhitespaceSplit or Metaspace, got ", type);
}

std::shared_ptr<const SubwordModel> make_bpe(const Json& json, const std::string& where) {
  Bpe::Vocab vocab;
  const auto items = json.find("vocab");
  require(items != json.end() && items->is_object(), where, ".vocab: expected an object");
  for (const auto& [token, id] : items->items()) {
    require(id.is_number_integer(), where, ".vocab: \"", token, "\": expected an id, got ",
            describe(id));
    vocab.emplace_back(token, id.get<int64_t>());
  }
  Bpe::Merges merges;
  const auto list = json.find("merges");
  require(list != json.end() && list->is_array(), where, ".merges: expected a list");
  for (const Json& merge : *list) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      merges.emplace_back(merge[0], merge[1]);
      continue;
    }
    const std::string text = merge.is_string() ? merge.get<std::string>() : "";
    const auto space = text.find(' ');
    require(space != std::string::npos, where, ".merges[", merges.size(),
            "]: expected two tokens, got ", describe(merge));
    merges.emplace_back(text.substr(0, space), text.substr(space + 1));
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    require(value_or<std::string>(json, key, "", where).empty(), where, ".", key,
            ": only models without one are built in");
  return std::make_shared<Bpe>(
      vocab, merges,
      Bpe::Options{.unk_token = value_or<std::string>(json, "unk_token", "", where),
                   .fuse_unk = value_or(json, "fuse_unk", false, where),
                   .byte_fallback = value_or(json, "byte_fallback", false, where),
                   .ignore_merges = value_or(json, "ignore_merges", false, where)},
      where);
}

std::shared_ptr<const SubwordModel> make_unigram(const Json& json, const std::string& where) {
  require(!value_or(json, "byte_fallback", false, where), where,
          ".byte_fallback: not built in for Unigram");
  Unigram::Pieces pieces;
  const auto items = json.find("vocab");
  require(items != json.end() && items->is_array(), where, ".vocab: expected a list");
  for (const Json& item : *items) {
    require(item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_number(),
            where, ".vocab[", pieces.size(), "]: expected [piece, score], got ", describe(item));
    pieces.emplace_back(item[0], item[1]);
  }
  return std::make_shared<Unigram>(pieces, value_or<int64_t>(json, "unk_id", -1, where), where);
}

/// Ids that a TemplateProcessing puts before and behind a single text.
void read_template(const Json& json, const std::string& where, TokenizerParts& parts) {
  const Json single = json.value("single", Json()), tokens = json.value("special_tokens", Json());
  require(single.is_array() && tokens.is_object(), where,
          ": expected a list \"single\" and an object \"special_tokens\"");
  bool behind = false;
  for (const Json& item : single) {
    require(item.is_object(), where, ".single: expected objects, got ", describe(item));
    if (item.contains("Sequence")) {
      behind = true;
      continue;
    }
    const Json token = item.value("SpecialToken", Json::object());
    const auto name = value_or<std::string>(token, "id", "", where);
    const auto found = tokens.find(name);
    require(found != tokens.end() && found->is_object() && found->contains("ids"), where,
            ".special_tokens: has no \"", name, "\" with ids");
    std::vector<int64_t> ids;
    read_value((*found)["ids"], ids, join_path(where, "special_tokens." + name + ".ids"),
               UnknownKeys::kKeep);
    auto& list = behind ? parts.suffix : parts.prefix;
    list.insert(list.end(), ids.begin(), ids.end());
  }
}

TokenizerParts::Decoder read_decoder(const Json& json, const std::string& where) {
  const auto found = json.find("decoder");
  const std::string path = join_path(where, "decoder");
  const std::string type = found == json.end() || found->is_null() ? "none" : type_of(*found, path);
  require(type == "ByteLevel" || type == "Metaspace", path,
          ": expected ByteLevel or Metaspace, got ", type);
  return type == "ByteLevel" ? TokenizerParts::Decoder::kByteLevel
                             : TokenizerParts::Decoder::kMetaspace;
}

}  // namespace

AddedToken parse_added_token(const Json& json, const std::string& where) {
  require(json.is_object(), where, ": expected an object, got ", describe(json));
  AddedToken token{.content = value_or<std::string>(json, "content", "", where),
                   .id = value_or<int64_t>(json, "id", -1, where),
                   .special = value_or(json, "special", false, where),
                   .normalized = false,
                   .single_word = value_or(json, "single_word", false, where),
                   .lstrip = value_or(json, "lstrip", false, where),
                   .rstrip = value_or(json, "rstrip", false, where)};
  token.normalized = value_or(json, "normalized", !token.special, where);
  require(!token.content.empty(), where, ".content: expected a text");
  return token;
}

TokenizerParts parse_tokenizer_json(const Json& json, const std::string& where) {
  require_available();
  require(json.is_object(), where, "expected an object, got ", describe(json));
  TokenizerParts parts;
  const auto model = json.find("model");
  const std::string path = join_path(where, "model");
  require(model != json.end(), path, ": missing");
  std::string type = type_of(*model, path);
  if (type.empty()) type = model->contains("merges") ? "BPE" : "Unigram";
  require(type == "BPE" || type == "Unigram", path, ": expected BPE or Unigram, got ", type);
  parts.model = type == "BPE" ? make_bpe(*model, path) : make_unigram(*model, path);

  std::vector<std::shared_ptr<const Normalizer>> normalizers;
  for (const auto& [step, name] : steps_of(json, "normalizer", "normalizers", where))
    normalizers.push_back(make_normalizer(*step, name));
  if (!normalizers.empty()) parts.normalizer = std::make_shared<NormalizerSequence>(normalizers);

  std::vector<std::shared_ptr<const PreTokenizer>> splits;
  for (const auto& [step, name] : steps_of(json, "pre_tokenizer", "pretokenizers", where))
    splits.push_back(make_pre_tokenizer(*step, name));
  if (!splits.empty()) parts.pre_tokenizer = std::make_shared<PreTokenizerSequence>(splits);

  for (const auto& [step, name] : steps_of(json, "post_processor", "processors", where)) {
    const std::string kind = type_of(*step, name);
    require(kind == "TemplateProcessing" || kind == "ByteLevel", name,
            ": expected TemplateProcessing or ByteLevel, got ", kind);
    if (kind == "TemplateProcessing") read_template(*step, name, parts);
  }
  parts.decoder = read_decoder(json, where);
  const Json added = json.value("added_tokens", Json::array());
  for (std::size_t i = 0; i < added.size(); ++i) {
    const std::string name = join_path(where, "added_tokens[" + std::to_string(i) + "]");
    parts.added.push_back(parse_added_token(added[i], name));
    require(parts.added.back().id >= 0, name, ".id: expected an id");
  }
  return parts;
}

}  // namespace cosmos::modules
