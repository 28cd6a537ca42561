#pragma once

// Conversations of JSONL files as packs of training sequences.
//
// A line is checked when the dataset is opened: its form, the order of its roles, its media, its
// length. What cannot be learned from is named with its line, and left out or refused. With
// `pack_length`, lines that fit together become one item (first-fit decreasing over shuffled
// lines), so that every item is nearly as long as the next, on every rank.

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "modules/vlm/conversation_encoder.h"
#include "trainer/core/dataset.h"

namespace cosmos::trainer {

struct ConversationDataConfig {
  std::vector<std::string> files;
  std::string media;            ///< folder that relative paths of media start from
  std::string on_bad = "skip";  ///< skip or refuse
  int64_t max_length = 4096;
  int64_t pack_length = 0;

  template <typename Visitor>
  void fields(Visitor& v) {
    v("files", files, "JSONL files of OpenAI messages or LLaVA conversations");
    v("media", media, "folder that media's paths start from; empty: that of the file");
    v("on_bad", on_bad, "skip: leave out lines that cannot be used, and count them; refuse: stop");
    v("max_length", max_length, "tokens; a longer conversation cannot be used");
    v("pack_length", pack_length, "tokens of a pack of conversations; 0: each on its own");
  }
  void check(const std::string& where) const;
};

/// Paths of a conversation's media made whole, from `base` on. Throws Error unless each is a file.
void resolve_media(modules::Conversation& conversation, const std::filesystem::path& base);

/// Items of `lengths` in bins of at most `capacity`, first-fit decreasing: lists of items. Each
/// length is at most `capacity`.
std::vector<std::vector<int64_t>> pack_bins(const std::vector<int64_t>& lengths, int64_t capacity);

/// What a line holds.
struct ConversationLine {
  /// One to learn, or several that belong together: the chosen and the rejected answer.
  std::vector<modules::Conversation> conversations;
  bool open = false;  ///< they end with a question: prompts, without labels
  std::map<std::string, std::string> text = {};  ///< goes along with the sample
};
/// Throws Error with `where` in front.
using LineReader = std::function<ConversationLine(const Json& line, const std::string& where)>;
/// One conversation that can be learned from (check_conversation).
ConversationLine read_training_line(const Json& line, const std::string& where);

/// A sample's ragged tensors: `input_ids` and `labels` [tokens of the pack], `lengths` [sequences],
/// and, where there are media, `pixel_values`, `image_grid_thw`, `pixel_values_videos`,
/// `video_grid_thw`, `second_per_grid_ts` of the pack.
class ConversationDataset : public Dataset {
 public:
  ConversationDataset(const ConversationDataConfig& config,
                      std::shared_ptr<const modules::ConversationEncoder> encoder,
                      const std::string& where, LineReader reader = read_training_line);

  int64_t size() const override { return static_cast<int64_t>(packs_.size()); }
  Sample get(int64_t item, uint64_t seed, int64_t sample_index) override;
  std::vector<std::pair<std::string, std::string>> left_out() const override { return left_out_; }
  std::string item_name(int64_t item) const override;

  /// Share of the packs' capacity that holds tokens; 1 without packing.
  double fill() const { return fill_; }

 private:
  struct Line {
    ConversationLine content;
    std::string where;   ///< "data.jsonl line 3"
    int64_t length = 0;  ///< tokens of all of them
  };
  void read_file(const std::string& path);
  void add_line(const std::string& text, const std::string& path, int64_t number);

  ConversationDataConfig config_;
  std::shared_ptr<const modules::ConversationEncoder> encoder_;
  LineReader reader_;
  std::vector<Line> lines_;
  std::vector<std::vector<int64_t>> packs_;  ///< lines of each item
  std::vector<std::pair<std::string, std::string>> left_out_;
  double fill_ = 1;
};

}  // namespace cosmos::trainer
