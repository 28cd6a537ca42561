#include <catch2/catch.hpp>
#include <limits>

#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "test/modules/hub/hostile.h"

using namespace cosmos;
using namespace cosmos::modules;
using cosmos::test::error_of;
using cosmos::test::TempFolder;

namespace {
std::string error_of_json(const std::string& text, const JsonOptions& options = {}) {
  return error_of([&] { parse_json(text, "x.json", options); });
}
}  // namespace

TEST_CASE("JSON of every kind is read as nlohmann reads it", "[hub]") {
  const std::string text =
      R"({"a": [1, -2, 3.5, 1e3, true, null, "é"], "b": {"c": {}, "d": [[], [{"e": 1}]]}})";
  CHECK(parse_json(text, "x.json") == Json::parse(text));
  CHECK(parse_json("3", "x.json") == 3);
}

TEST_CASE("JSON errors name file and line", "[hub]") {
  CHECK(error_of_json("{\n\"a\": 1,\n}").rfind("x.json:3: not valid JSON", 0) == 0);
  CHECK(error_of_json("{} x").find("not valid JSON") != std::string::npos);
  CHECK(error_of_json("").find("not valid JSON") != std::string::npos);
  CHECK(error_of_json("{\"a\": NaN}").find("not valid JSON") != std::string::npos);
  CHECK(error_of_json("{\"a\": -Infinity}").find("not valid JSON") != std::string::npos);
  CHECK(error_of_json("\"\xff\"").find("not valid JSON") != std::string::npos);
  CHECK(error_of_json("{\"a\": 1e400}").find("number overflow") != std::string::npos);
  CHECK(error_of_json(R"({"a": {"b": 1, "b": 2}})").find("\"b\" appears twice") !=
        std::string::npos);
  CHECK(error_of_json(std::string(65, '[') + std::string(65, ']')).find("deeper than 64") !=
        std::string::npos);
  CHECK(error_of_json(std::string(64, '[') + std::string(64, ']')).empty());
}

TEST_CASE("Comments are accepted only where asked for", "[hub]") {
  const std::string text = "{ // rate\n \"lr\": 1 /* base */ }";
  CHECK(!error_of_json(text).empty());
  CHECK(parse_json(text, "x.json", {.comments = true}) == Json({{"lr", 1}}));
}

TEST_CASE("JSON files are written whole or not at all", "[hub]") {
  TempFolder folder;
  write_json(folder / "new" / "x.json", {{"b", 1}, {"a", "é"}});
  CHECK(read_file(folder / "new" / "x.json", 100) == "{\n  \"a\": \"é\",\n  \"b\": 1\n}\n");
  CHECK(error_of([&] {
          write_json(folder / "nan.json", {{"a", std::numeric_limits<double>::quiet_NaN()}});
        }).find("NaN") != std::string::npos);
  CHECK(!std::filesystem::exists(folder / "nan.json"));
  CHECK(error_of([&] {
          read_json(folder / "new" / "x.json", {.max_bytes = 3});
        }).find("more than the limit") != std::string::npos);
  CHECK(error_of([&] { read_json(folder / "none.json"); }).find("cannot open") !=
        std::string::npos);
}
