#include <catch2/catch.hpp>
#include <filesystem>
#include <string>

#include "modules/hub/atomic_file.h"
#include "test/support/program.h"

using Catch::Matchers::Contains;
using cosmos::test::Answer;

namespace {

Answer cosmos_train(const std::string& arguments) {
  return cosmos::test::run_program("cosmos-train", arguments);
}

}  // namespace

TEST_CASE("cosmos-train answers wrong usage and wrong configs in one line", "[cosmos-train]") {
  const auto dir = std::filesystem::temp_directory_path() / "cosmos-train-cli";
  cosmos::modules::write_file(dir / "typo.json", R"({"trainer": {"optimizer": {"lrr": 1}}})");
  cosmos::modules::write_file(dir / "recipe.json", R"({"recipe": {"type": "difusion_"}})");

  Answer answer = cosmos_train("");
  CHECK(answer.code == 2);
  CHECK_THAT(answer.text, Contains("CONFIG.json"));

  answer = cosmos_train((dir / "typo.json").string() + " --check");
  CHECK(answer.code == 1);
  CHECK(answer.text == "cosmos-train: " + (dir / "typo.json").string() +
                           ": trainer.optimizer.lrr is not a setting (did you mean lr?)\n");

  answer = cosmos_train((dir / "recipe.json").string());
  CHECK(answer.code == 1);
  CHECK_THAT(answer.text, Contains("\"difusion_\" is not a recipe"));

  answer = cosmos_train("none.json");
  CHECK(answer.code == 1);
  CHECK_THAT(answer.text, Contains("none.json"));

  answer = cosmos_train("none.json --nproc 0");
  CHECK(answer.code == 1);
  CHECK_THAT(answer.text, Contains("--nproc: expected 1 or more, got 0"));

  answer = cosmos_train("--no-such-option");
  CHECK(answer.code == 2);
  std::filesystem::remove_all(dir);
}

TEST_CASE("the published configs are checked and planned without their weights", "[cosmos-train]") {
  const std::string folder = COSMOS_SOURCE_DIR "/configs/";
  for (const std::string name : {"predict/predict2.5-2b.json", "predict/predict2.5-2b-lora.json",
                                 "transfer/transfer2.5-2b-multiview.json"}) {
    INFO(name);
    CHECK(cosmos_train(folder + name + " --check").code == 0);
    const Answer plan = cosmos_train(folder + name + " --plan");
    CHECK(plan.code == 0);
    CHECK_THAT(plan.text, Contains("predicted peak") && Contains("parameters"));
  }
  const Answer train = cosmos_train(folder + "predict/predict2.5-2b.json run.dir=" +
                                    std::filesystem::temp_directory_path().string() + "/none");
  CHECK(train.code == 1);
  CHECK_THAT(train.text, Contains("no such folder"));
}
