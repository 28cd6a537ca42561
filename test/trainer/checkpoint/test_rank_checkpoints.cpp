// Checkpoints of several ranks: who writes, what is damaged, how many go on.

#include <cstring>

#include "modules/hub/atomic_file.h"
#include "test/support/rank_runs.h"
#include "trainer/checkpoint/store.h"

using namespace cosmos;
using namespace cosmos::test;
using namespace cosmos::trainer;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

TEST_CASE("who writes a checkpoint's files does not show in them", "[parallel]") {
  Runs runs;
  const Json recipe = GENERATE(Json(Json::object()), Json({{"lora", {{"rank", 3}}}}));
  const auto files = [&](const std::string& name, int ranks, Json how) {
    how.update({{"steps", 6}, {"save_every", 3}});
    runs.run(name, ranks, how, recipe);
    const fs::path last = runs.dir(name) / "checkpoints" / "step-00000006";
    std::map<std::string, std::string> contents;
    const Json manifest = verify_checkpoint(last);
    for (const auto& [file, entry] : manifest["files"].items())
      contents[file] = modules::read_file(last / file, 1 << 24);
    return contents;
  };
  const Json four = {{"gradient_accumulation", 1}, {"parallel", {{"replica", 2}}}};
  Json single = four;
  single["checkpoint"] = {{"writers", "single"}, {"background", false}};
  const auto shared = files("shared", 4, four);
  CHECK(files("single", 4, single) == shared);
  // One process's numbers differ in their last digits; where they stand does not.
  for (const auto& [file, content] : files("one", 1, Json::object())) {
    INFO(file);
    REQUIRE(shared.count(file) == 1);
    CHECK(shared.at(file).size() == content.size());
    if (!file.ends_with(".safetensors")) continue;
    uint64_t header = 0;
    std::memcpy(&header, content.data(), 8);
    CHECK(shared.at(file).substr(0, header + 8) == content.substr(0, header + 8));
  }
}

TEST_CASE("ranks find what is damaged, name it, and go on from the newest good checkpoint",
          "[parallel]") {
  Runs runs;
  const Json how = {{"precision", "fp32"},
                    {"gradient_accumulation", 2},
                    {"save_every", 2},
                    {"keep_checkpoints", 0}};
  Outcome whole = runs.run("run", 2, how);
  // They are mapped from the file that is damaged below.
  for (auto& [name, weight] : whole.weights) weight = weight.clone();
  const fs::path last = runs.dir("run") / "checkpoints/step-00000006";
  const fs::path model = last / "model/diffusion_pytorch_model.safetensors";
  const std::string what = GENERATE("model/diffusion_pytorch_model.safetensors: has",
                                    "optimizer.safetensors: content does not match",
                                    "ema/config.json: missing", "(no trainer.json)");
  INFO(what);
  if (what.ends_with("has")) {
    fs::resize_file(model, fs::file_size(model) - 100);
  } else if (what.ends_with("match")) {
    std::fstream file(last / "optimizer.safetensors", std::ios::in | std::ios::out);
    file.seekg(-5, std::ios::end);
    const char flipped = static_cast<char>(file.peek() ^ 4);
    file.seekp(-5, std::ios::end);
    file.put(flipped);
  } else {
    fs::remove(last / (what.ends_with("missing") ? "ema/config.json" : "trainer.json"));
  }
  const Outcome again = runs.run("run", 2, how);
  CHECK_THAT(modules::read_file(runs.dir("run") / "log.txt", 1 << 20),
             Contains("skipping a damaged checkpoint: ") && Contains(what) &&
                 Contains("resumed after step 4"));
  CHECK(again.losses == whole.losses);
  for (const auto& [name, weight] : whole.weights)
    CHECK(torch::equal(weight, again.weights.at(name)));
}

TEST_CASE("fewer ranks go on where more stopped, in the data, too", "[parallel]") {
  Runs runs;
  const auto train = [&](const std::string& name, int ranks, int steps, int accumulation) {
    const Answer answer = runs.start(
        name, ranks, {{"steps", steps}, {"gradient_accumulation", accumulation}}, Json::object());
    INFO(answer.text);
    REQUIRE(answer.code == 0);
  };
  // The global batch shrinks with the ranks: four samples a step, then two.
  train("ranks", 4, 3, 1);
  train("ranks", 2, 6, 1);
  train("one", 1, 3, 4);
  train("one", 1, 6, 2);
  check_same(Runs::read(runs.dir("ranks")), Runs::read(runs.dir("one")), 1e-9);
  const Json manifest = read_manifest(runs.dir("ranks") / "checkpoints/step-00000006");
  CHECK(manifest["next_sample"] == 3 * 4 + 3 * 2);
  CHECK_THAT(modules::read_file(runs.dir("ranks") / "log.txt", 1 << 20),
             Contains("the data goes on with sample 12"));
  // And again, with a batch that does not divide the position.
  train("ranks", 1, 7, 4);
  CHECK(read_manifest(runs.dir("ranks") / "checkpoints/step-00000007")["next_sample"] == 20 + 4);
}
