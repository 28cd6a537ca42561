#include "tools/curate/endpoint.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <stdexcept>
#include <thread>

#include "modules/hub/atomic_file.h"
#include "tools/curate/http.h"
#include "trainer/data/media_writer.h"
#include "trainer/report/page.h"

namespace cosmos::curate {
namespace {

constexpr long kTimeout = 600;  // seconds: a long answer of a large model

/// Not an Error: it is not the clip's fault, and ends the run.
class Unreachable : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

std::string short_text(const std::string& text) {
  return modules::printable(text.substr(0, 300));
}

/// The first answer that is not a refusal for now.
HttpAnswer ask(const std::string& url, const std::string& body) {
  const char* key = std::getenv("COSMOS_CAPTION_KEY");
  HttpAnswer answer;
  for (const int pause : {0, 1, 4}) {
    std::this_thread::sleep_for(std::chrono::seconds(pause));
    answer = post_json(url, key ? key : "", body, kTimeout);
    if (answer.code != 0 && answer.code != 429 && answer.code < 500) return answer;
  }
  throw Unreachable("captions.endpoint: " + url + ": " +
                    (answer.code ? std::to_string(answer.code) + " " : "") +
                    short_text(answer.text) + " (asked three times; start again to go on)");
}

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\r\n"), last = text.find_last_not_of(" \t\r\n");
  return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

}  // namespace

EndpointCaption::EndpointCaption(Store& store, std::filesystem::path output,
                                 const CaptionConfig& config)
    : ClipStage(store, "cannot be captioned"), output_(std::move(output)), config_(config) {}

std::string EndpointCaption::question(const std::filesystem::path& clip) const {
  const trainer::VideoInfo info = trainer::probe_video(clip);
  const auto count = std::clamp<int64_t>(std::llround(info.duration() * config_.fps), 1,
                                         std::min(config_.frames, info.frames()));
  std::vector<double> times;  // the middles of equal parts
  for (int64_t i = 0; i < count; ++i)
    times.push_back(info.duration() * (static_cast<double>(i) + 0.5) / static_cast<double>(count));
  const Tensor frames = trainer::read_frames_at(clip, info, times, {});
  Json parts = Json::array();
  for (const Tensor& frame : frames.unbind())
    parts.push_back({{"type", "image_url"},
                     {"image_url",
                      {{"url", "data:image/png;base64," +
                                   trainer::base64(trainer::png_bytes(frame.contiguous()))}}}});
  parts.push_back({{"type", "text"}, {"text", config_.prompt}});
  return Json{{"model", config_.endpoint_model},
              {"messages", {{{"role", "user"}, {"content", parts}}}},
              {"max_tokens", config_.max_new_tokens},
              {"temperature", 0}}
      .dump();
}

void EndpointCaption::process(Video&, Segment& clip) {
  const std::string url = config_.endpoint + "/chat/completions";
  const HttpAnswer answer = ask(url, question(output_ / clip.file));
  if (answer.code == 401 || answer.code == 403 || answer.code == 404)
    throw Unreachable("captions.endpoint: " + url + ": " + std::to_string(answer.code) + " " +
                      short_text(answer.text) + " (COSMOS_CAPTION_KEY, captions.endpoint_model?)");
  require(answer.code == 200, answer.code, " ", short_text(answer.text));
  std::string text;
  try {
    text = Json::parse(answer.text).at("choices").at(0).at("message").at("content");
  } catch (const Json::exception&) {
    fail("expected choices[0].message.content, got ", short_text(answer.text));
  }
  store_.save_caption(clip.id, trimmed(text));
}

}  // namespace cosmos::curate
