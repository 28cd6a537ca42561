#include <catch2/catch.hpp>

#include "modules/hub/atomic_file.h"
#include "test/trainer/toy_recipe.h"
#include "trainer/checkpoint/crc32c.h"
#include "trainer/report/report.h"
#include "trainer/report/svg.h"
#include "trainer/report/tensorboard.h"

using namespace cosmos;
using namespace cosmos::test;
using namespace cosmos::trainer;
using Catch::Matchers::Contains;

TEST_CASE("Event files are TFRecords with valid checksums around the expected bytes", "[report]") {
  TempFolder dir;
  {
    EventFile events(dir.path(), 0);
    CHECK(events.write(3, {{"loss", 0.5f}}));
  }
  const auto file = *std::filesystem::directory_iterator(dir.path());
  const std::string bytes = modules::read_file(file.path(), 1 << 20);
  const auto masked = [](const char* data, std::size_t size) {
    const uint32_t crc = crc32c(data, size);
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
  };
  std::vector<std::string> records;
  for (std::size_t at = 0; at < bytes.size();) {
    uint64_t size = 0;
    uint32_t crc = 0;
    std::memcpy(&size, &bytes[at], 8);
    std::memcpy(&crc, &bytes[at + 8], 4);
    CHECK(crc == masked(&bytes[at], 8));
    REQUIRE(at + 16 + size <= bytes.size());
    std::memcpy(&crc, &bytes[at + 12 + size], 4);
    CHECK(crc == masked(&bytes[at + 12], size));
    records.push_back(bytes.substr(at + 12, size));
    at += 16 + size;
  }
  REQUIRE(records.size() == 2);
  CHECK_THAT(records[0], Contains("brain.Event:2"));
  // step 3; summary { value { tag: "loss" simple_value: 0.5 } }
  const std::string expected("\x10\x03\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\x00\x3f", 17);
  CHECK(records[1].substr(9) == expected);
}

TEST_CASE("Ticks are round and cover the range", "[report]") {
  CHECK(nice_ticks(0, 1, 5) == std::vector<double>{0, 0.2, 0.4, 0.6000000000000001, 0.8, 1});
  CHECK(nice_ticks(3, 3, 5).empty());
}

TEST_CASE("A chart without finite points is left out, text is escaped", "[report]") {
  CHECK(line_chart({.title = "x", .series = {{"a", "main", {{1, std::nan("")}}}}}).empty());
  const std::string svg =
      line_chart({.title = "<b>", .series = {{"a", "main", {{1, 1}, {2, std::nan("")}, {3, 2}}}}});
  CHECK_THAT(svg, Contains("&lt;b&gt;") && !Contains("nan"));
}

TEST_CASE("A histogram counts every finite value once, its limit among the columns", "[report]") {
  const std::string svg = histogram(
      {.title = "a & b",
       .groups = {{"kept", "main", {1, 1, 2, 3}}, {"dropped", "second", {3, std::nan("")}}},
       .limit = 2.5});
  CHECK_THAT(svg, Contains("a &amp; b") && Contains("limit 2.5") && !Contains("nan"));
  int64_t sum = 0;
  const std::string before = "<rect", title = "<title>";
  for (std::size_t at = svg.find(before); at != std::string::npos; at = svg.find(before, at + 1))
    sum += std::stoll(svg.substr(svg.find(title, at) + title.size()));
  CHECK(sum == 5);
  CHECK_THAT(histogram({.title = "x", .groups = {{"a", "main", {1, 1000}}}}), Contains("(log)"));
  CHECK(histogram({.title = "x", .groups = {{"a", "main", {}}}}).empty());
}

TEST_CASE("The report holds curves, loss by label and pictures, and needs no network", "[report]") {
  TempFolder dir;
  run_toy(toy_config(dir.path(), {{"steps", 30}, {"validate_every", 10}, {"sample_every", 15}},
                     {{"pictures", true}}));
  const std::string page = modules::read_file(dir.path() / "report.html", 1 << 24);
  CHECK_THAT(page, Contains("Training loss") && Contains("Validation loss") &&
                       Contains("Training loss by half") && Contains("data:image/png;base64,"));
  CHECK_THAT(page, !Contains("http") && !Contains("<script src"));
  CHECK_THAT(error_of([&] { write_report(dir.path() / "none"); }),
             Contains("is this a run folder?"));
}
