// cosmos-curate's captions from a server.

#ifdef COSMOS_CURL

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>

#include "test/support/http_server.h"
#include "test/tools/curate_run.h"

using namespace cosmos;
using cosmos::test::Answer;
using cosmos::test::run_program;
using Run = cosmos::test::CurateRun;

namespace {

struct Scene : Run {
  Scene() {
    test::write_footage(inputs / "a.mp4", test::scene(20, {200, 60, 40}, {250, 250, 250}));
    test::write_footage(inputs / "b.mp4", test::scene(30, {30, 90, 200}, {10, 10, 10}));
  }
  Answer caption(const std::string& endpoint) {
    const Json settings = {
        {"split", {{"min_s", 0}}},
        {"captions",
         {{"endpoint", endpoint}, {"endpoint_model", "some/model"}, {"prompt", "What is this?"}}}};
    return run_program("cosmos-curate", config(settings).string(), "export COSMOS_CAPTION_KEY=k1");
  }
};

}  // namespace

TEST_CASE("cosmos-curate asks a server for captions, again where it is busy", "[curate]") {
  Scene run;
  std::atomic<int> requests{0};
  std::vector<std::size_t> pictures;
  std::string head;
  const test::HttpServer server([&](const std::string& top, const std::string& body) {
    if (requests++ == 0) return std::string("503 Busy\nlater");
    head = top;
    const Json asked = Json::parse(body), &content = asked["messages"][0]["content"];
    pictures.push_back(content.size() - 1);
    const std::string url = content[0]["image_url"]["url"];
    if (asked["model"] != "some/model" || url.rfind("data:image/png;base64,iVBOR", 0) != 0 ||
        content.back()["text"] != "What is this?")
      return std::string("400 Bad Request\nnot what was expected");
    if (pictures.back() == 6) return std::string("400 Bad Request\ntoo many pictures");
    return std::string(R"(200 OK
{"choices": [{"message": {"content": " A square.\n"}}]})");
  });
  const Answer done = run.caption(server.url() + "/v1");
  INFO(done.text);
  REQUIRE(done.code == 0);
  CHECK(requests == 3);
  std::sort(pictures.begin(), pictures.end());
  CHECK(pictures == std::vector<std::size_t>{4, 6});  // 2 and 3 s at 2 a second
  CHECK(head.rfind("POST /v1/chat/completions", 0) == 0);
  CHECK(head.find("Authorization: Bearer k1") != std::string::npos);
  REQUIRE(run.lines("clips.jsonl").size() == 1);
  CHECK(run.lines("clips.jsonl")[0]["caption"] == "A square.");
  const Json failed = run.lines("dropped.jsonl").at(0);
  CHECK(failed["reason"] == "cannot be captioned");
  CHECK(failed["detail"] == "400 too many pictures");
}

TEST_CASE("cosmos-curate stops where the caption server is not there", "[curate]") {
  Scene run;
  std::string dead;
  {
    const test::HttpServer gone([](const auto&, const auto&) { return "200 OK\n"; });
    dead = gone.url();
  }
  const Answer stopped = run.caption(dead);
  CHECK(stopped.code == 1);
  CHECK(stopped.text.find("captions.endpoint: " + dead) != std::string::npos);
}

#endif  // COSMOS_CURL
