#include <array>
#include <catch2/catch.hpp>
#include <cstdio>
#include <filesystem>
#include <string>
#include <sys/wait.h>

#include "modules/hub/atomic_file.h"

using Catch::Matchers::Contains;

namespace {

struct Answer {
  int code;
  std::string text;  // stdout and stderr
};

Answer cosmos_train(const std::string& arguments) {
  const std::string command =
      "OMP_NUM_THREADS=1 " COSMOS_BIN_DIR "/cosmos-train " + arguments + " 2>&1";
  FILE* pipe = ::popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  Answer answer;
  std::array<char, 4096> buffer{};
  while (std::size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe))
    answer.text.append(buffer.data(), n);
  answer.code = WEXITSTATUS(::pclose(pipe));
  return answer;
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

  answer = cosmos_train("none.json --nproc 2");
  CHECK(answer.code == 1);
  CHECK_THAT(answer.text, Contains("one process"));

  answer = cosmos_train("--no-such-option");
  CHECK(answer.code == 2);
  std::filesystem::remove_all(dir);
}
