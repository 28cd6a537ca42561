// SentencePiece's model file: a protocol buffer (sentencepiece_model.proto). Read here are
//   1 pieces { 1 piece: string, 2 score: float, 3 type: enum }, repeated
//   2 trainer_spec { 3 model_type, 40 unk_id }
//   3 normalizer_spec { 2 precompiled_charsmap: bytes }
// and everything else is skipped.

#include <cstring>
#include <functional>

#include "modules/text/tokenizer_file.h"

namespace cosmos::modules {
namespace {

/// A field of a message; which of the members holds depends on its wire type.
struct Field {
  uint64_t number = 0;
  uint64_t value = 0;        ///< wire type 0 (varint), 1 and 5 (fixed)
  std::string_view bytes{};  ///< wire type 2
};

class Reader {
 public:
  Reader(std::string_view data, const std::string& where) : data_(data), where_(where) {}

  bool next(Field& field) {
    if (at_ >= data_.size()) return false;
    const uint64_t tag = varint();
    field = {.number = tag >> 3};
    switch (tag & 7) {
      case 0:
        field.value = varint();
        return true;
      case 1:
        field.value = fixed(8);
        return true;
      case 2:
        field.bytes = take(varint());
        return true;
      case 5:
        field.value = fixed(4);
        return true;
      default:
        fail(where_, ": not a SentencePiece model (byte ", at_, ")");
    }
  }

 private:
  std::string_view take(uint64_t count) {
    require(count <= data_.size() - at_, where_, ": cut off, or not a SentencePiece model (byte ",
            at_, ")");
    const std::string_view bytes = data_.substr(at_, count);
    at_ += count;
    return bytes;
  }

  uint64_t fixed(int count) {
    uint64_t value = 0;
    std::memcpy(&value, take(count).data(), count);
    return value;
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail(where_, ": not a SentencePiece model (byte ", at_, ")");
  }

  std::string_view data_;
  const std::string& where_;
  std::size_t at_ = 0;
};

void read_message(std::string_view data, const std::string& where,
                  const std::function<void(const Field&)>& take) {
  Reader reader(data, where);
  for (Field field; reader.next(field);) take(field);
}

SentencePieceFile::Piece read_piece(std::string_view data, const std::string& where) {
  SentencePieceFile::Piece piece;
  read_message(data, where, [&](const Field& field) {
    if (field.number == 1) piece.text = std::string(field.bytes);
    if (field.number == 2) {
      float score = 0;
      std::memcpy(&score, &field.value, 4);
      piece.score = score;
    }
    if (field.number == 3) piece.kind = static_cast<SentencePieceFile::Kind>(field.value);
  });
  text::require_utf8(piece.text, where);
  return piece;
}

}  // namespace

SentencePieceFile parse_sentencepiece(const std::string& bytes, const std::string& where) {
  SentencePieceFile file;
  read_message(bytes, where, [&](const Field& field) {
    if (field.number == 1) file.pieces.push_back(read_piece(field.bytes, where));
    if (field.number == 2)
      read_message(field.bytes, where, [&](const Field& spec) {
        if (spec.number == 3) file.model_type = static_cast<int64_t>(spec.value);
        if (spec.number == 40) file.unk_id = static_cast<int64_t>(spec.value);
      });
    if (field.number == 3)
      read_message(field.bytes, where, [&](const Field& spec) {
        if (spec.number == 2) file.charsmap = std::string(spec.bytes);
      });
  });
  require(!file.pieces.empty(), where, ": no pieces: not a SentencePiece model");
  return file;
}

}  // namespace cosmos::modules
