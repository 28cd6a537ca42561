#include "trainer/recipes/clip_shape.h"

namespace cosmos::trainer {

void require_clips_fit(const modules::VideoTokenizer& tokenizer, const Json& data,
                       const std::string& where) {
  const auto number = [&](const char* key) {
    const auto at = data.find(key);
    return at != data.end() && at->is_number_integer() ? at->get<int64_t>() : 0;
  };
  if (number("num_frames") > 0)
    tokenizer.require_frames(number("num_frames"), where + ".num_frames");
  if (number("height") > 0 && number("width") > 0)
    tokenizer.require_size(number("height"), number("width"), where + ".height, .width");
  const Json buckets = data.value("buckets", Json::array());
  for (std::size_t i = 0; i < buckets.size(); ++i) {
    const auto size = buckets[i].get<std::vector<int64_t>>();
    tokenizer.require_size(size.at(0), size.at(1), where + ".buckets[" + std::to_string(i) + "]");
  }
}

}  // namespace cosmos::trainer
