#pragma once

// Tokenizer files: Hugging Face's tokenizer.json, GPT-2's vocab.json + merges.txt, SentencePiece's
// spiece.model. All are untrusted input: what is not understood is an error that names it.

#include <filesystem>

#include "modules/hub/json_file.h"
#include "modules/text/tokenizer.h"

namespace cosmos::modules {

/// The tokenizer of a folder: tokenizer.json before vocab.json + merges.txt before spiece.model,
/// with tokenizer_config.json where there is one. A T5 tokenizer (by tokenizer_class, or
/// spiece.model) is put together as transformers' T5Tokenizer does, whatever else its
/// tokenizer.json says.
TokenizerParts read_tokenizer(const std::filesystem::path& dir);

/// tokenizer.json as it is. `where` names it in errors: "DIR/tokenizer.json: ".
TokenizerParts parse_tokenizer_json(const Json& json, const std::string& where);

/// An entry of added_tokens or added_tokens_decoder; id -1 where it has none.
text::AddedToken parse_added_token(const Json& json, const std::string& where);

/// Pieces, scores and character map of a SentencePiece model.
struct SentencePieceFile {
  enum class Kind {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6
  };
  struct Piece {
    std::string text;
    double score = 0;
    Kind kind = Kind::kNormal;
  };
  std::vector<Piece> pieces;
  int64_t model_type = 1;  ///< 1: unigram, 2: BPE
  int64_t unk_id = 0;
  std::string charsmap;  ///< "": no normalisation
};

/// Throws Error when `bytes` are not a SentencePiece model; `where` names them.
SentencePieceFile parse_sentencepiece(const std::string& bytes, const std::string& where);

}  // namespace cosmos::modules
