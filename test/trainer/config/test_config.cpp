#include <catch2/catch.hpp>

#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "test/trainer/toy_recipe.h"
#include "trainer/config/config.h"

using namespace cosmos;
using namespace cosmos::trainer;
using Catch::Matchers::Contains;
using Catch::Matchers::EndsWith;
using cosmos::test::error_of;

namespace {

struct Files {
  test::TempFolder dir;
  std::string write(const std::string& name, const std::string& text) {
    modules::write_file(dir.path() / name, text);
    return (dir.path() / name).string();
  }
};

}  // namespace

TEST_CASE("A config inherits, is overridden and keeps comments", "[config]") {
  Files files;
  files.write("base.json", R"({"recipe": {"type": "toy", "width": 4},
                               "trainer": {"steps": 7, "optimizer": {"lr": 1e-3, "eps": 1e-6}}})");
  const auto file = files.write("x.json", R"({"base": "base.json", // more of the same
                               "trainer": {"optimizer": {"lr": 5e-4}}})");
  const Config config = load_config(
      file, {"trainer.seed=3", "run.dir=out/a b", "trainer.optimizer.betas=[0.5, 0.9]"});
  CHECK(config.trainer.steps == 7);
  CHECK(config.trainer.optimizer.lr == 5e-4);
  CHECK(config.trainer.optimizer.eps == 1e-6);
  CHECK(config.trainer.optimizer.betas == std::vector<double>{0.5, 0.9});
  CHECK(config.trainer.seed == 3);
  CHECK(config.run.dir == "out/a b");
  CHECK(config.recipe["width"] == 4);
  // What config.json holds reads back as the same config.
  CHECK(resolved(parse_config(resolved(config), "again")) == resolved(config));
}

TEST_CASE("A recipe of another type does not inherit the base's recipe settings", "[config]") {
  Files files;
  files.write("base.json", R"({"recipe": {"type": "toy", "width": 4}})");
  const auto file = files.write("x.json", R"({"base": "base.json", "recipe": {"type": "other"}})");
  CHECK(load_config(file).recipe == Json{{"type", "other"}});
}

TEST_CASE("A typo is named with its file, path and the nearest setting", "[config]") {
  Files files;
  const auto typo = files.write("x.json", R"({"trainer": {"optimizer": {"lrr": 1}}})");
  const std::string expected = typo + ": trainer.optimizer.lrr is not a setting (did you mean lr?)";
  CHECK(error_of([&] { load_config(typo); }) == expected);
  const auto child = files.write("child.json", R"({"base": "x.json"})");
  CHECK(error_of([&] { load_config(child); }) == (files.dir.path() / "x.json").string() +
                                                     ": trainer.optimizer.lrr is not a setting "
                                                     "(did you mean lr?)");
  const auto good = files.write("good.json", R"({"recipe": {"type": "toy"}})");
  CHECK(error_of([&] { load_config(good, {"trainer.stepz=3"}); }) ==
        "command line: trainer.stepz is not a setting (did you mean steps?)");
  CHECK_THAT(error_of([&] { load_config(good, {"trainer.steps=many"}); }),
             Contains("command line: trainer.steps: expected a whole number"));
  CHECK_THAT(error_of([&] { load_config(good, {"steps"}); }), Contains("key.path=value"));
}

TEST_CASE("Unreadable configs say what is wrong", "[config]") {
  Files files;
  CHECK_THAT(error_of([&] { load_config(files.dir.path() / "none.json"); }), Contains("none.json"));
  const auto loop = files.write("loop.json", R"({"base": "loop.json"})");
  CHECK_THAT(error_of([&] { load_config(loop); }), EndsWith("base: the file is its own base"));
  const auto orphan = files.write("orphan.json", R"({"base": "gone.json"})");
  CHECK_THAT(error_of([&] { load_config(orphan); }), Contains("base: no such file"));
  const auto wrong = files.write("wrong.json", R"({"trainer": {"steps": "ten"}})");
  CHECK_THAT(error_of([&] { load_config(wrong); }),
             Contains("trainer.steps: expected a whole number, got string \"ten\""));
}

TEST_CASE("validate lists every impossible value at once", "[config]") {
  Config config = parse_config({{"recipe", {{"type", "toy"}}}}, "x.json");
  CHECK_NOTHROW(validate(config));
  config.trainer.steps = 0;
  config.trainer.precision = "fp31";
  config.trainer.optimizer.betas = {0.9};
  config.trainer.schedule.min_factor = 2;
  const std::string errors = error_of([&] { validate(config); });
  CHECK_THAT(errors, Contains("x.json: trainer.steps: expected 1 or more, got 0"));
  CHECK_THAT(errors, Contains("\"fp31\" (did you mean fp32?)"));
  CHECK_THAT(errors, Contains("trainer.optimizer.betas: expected two numbers, got 1"));
  CHECK_THAT(errors, Contains("trainer.schedule.min_factor"));
  config.recipe = Json::object();
  CHECK_THAT(error_of([&] { validate(config); }), Contains("recipe.type"));
}

TEST_CASE("configs/schema.json is what the settings say", "[config]") {
  const std::string file = std::string(COSMOS_SOURCE_DIR) + "/configs/schema.json";
  INFO("renew it with: cosmos-train --schema > configs/schema.json");
  CHECK(modules::read_json(file) == config_schema());
}
