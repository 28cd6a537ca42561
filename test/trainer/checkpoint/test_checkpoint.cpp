#include <catch2/catch.hpp>
#include <signal.h>
#include <sys/resource.h>

#include "modules/hub/atomic_file.h"
#include "test/trainer/toy_recipe.h"
#include "trainer/checkpoint/crc32c.h"

using namespace cosmos;
using namespace cosmos::test;
using namespace cosmos::trainer;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

void write_text(const fs::path& dir, const std::string& text) {
  modules::write_file(dir / "model/weights", text);
}

fs::path save_text(CheckpointStore& store, int64_t step, const std::string& text) {
  return store.save(step, {{"seed", 1}}, [&](const fs::path& dir) { write_text(dir, text); });
}

}  // namespace

TEST_CASE("CRC-32C gives the published check value, in one go or in pieces", "[checkpoint]") {
  CHECK(crc32c("123456789", 9) == 0xe3069283u);
  CHECK(crc32c("56789", 5, crc32c("1234", 4)) == 0xe3069283u);
  const std::string text(1000, 'x');
  CHECK(crc32c(text.data(), 1000) == crc32c(text.data() + 333, 667, crc32c(text.data(), 333)));
}

TEST_CASE("Checkpoints are kept up to a number, the newest intact one is found", "[checkpoint]") {
  TempFolder dir;
  CheckpointStore store(dir.path() / "checkpoints", 2);
  std::vector<std::string> reports;
  const auto report = [&](const std::string& text) { reports.push_back(text); };
  CHECK(!store.newest(report));
  for (int64_t step : {10, 20, 30}) save_text(store, step, std::to_string(step));
  CHECK(store.steps() == std::vector<int64_t>{20, 30});
  CHECK(store.newest(report)->filename() == "step-00000030");
  CHECK(reports.empty());

  // One byte changed, same size: the checksum tells.
  std::ofstream(store.path(30) / "model/weights") << "31";
  CHECK(store.newest(report)->filename() == "step-00000020");
  REQUIRE(reports.size() == 1);
  CHECK_THAT(reports[0], Contains("step-00000030/model/weights: content does not match"));
  fs::remove(store.path(30) / "trainer.json");
  CHECK(store.newest(report)->filename() == "step-00000020");
  CHECK_THAT(reports[1], Contains("not a checkpoint"));

  // Going on from step 20 puts the damaged one aside, so that retention cannot prefer it.
  CHECK(store.set_aside_after(20) == std::vector<int64_t>{30});
  save_text(store, 25, "25");
  CHECK(store.steps() == std::vector<int64_t>{20, 25});
}

TEST_CASE("A save that fails leaves nothing under a final name", "[checkpoint]") {
  TempFolder dir;
  CheckpointStore store(dir.path(), 2);
  save_text(store, 1, "good");
  const std::string error = error_of([&] {
    store.save(2, Json::object(), [](const fs::path& folder) {
      write_text(folder, "half");
      fail("disk full");
    });
  });
  CHECK(error == "disk full");
  CHECK(store.steps() == std::vector<int64_t>{1});
  CHECK(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()) == 1);
}

TEST_CASE("A manifest cannot lead out of its checkpoint", "[checkpoint]") {
  TempFolder dir;
  modules::write_json(
      dir.path() / "trainer.json",
      {{"format", 1}, {"step", 1}, {"files", {{"../secret", {{"bytes", 1}, {"crc32c", 1}}}}}});
  CHECK_THAT(error_of([&] { verify_checkpoint(dir.path()); }), Contains("leaves the checkpoint"));
}

TEST_CASE("A full disk fails the save, not the training", "[checkpoint]") {
  TempFolder dir;
  // Files beyond the limit are refused (EFBIG), as a full disk refuses them.
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{.rlim_cur = 64 << 10, .rlim_max = before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const RunResult result =
      run_toy(toy_config(dir.path(), {{"steps", 4}, {"save_every", 2}}, {{"width", 64}}));
  ::setrlimit(RLIMIT_FSIZE, &before);
  CHECK(result.finished);
  CHECK(!result.saved);
  CHECK(result.checkpoint.empty());
  CHECK(read_rows(dir.path()).size() == 4);
  const fs::path checkpoints = dir.path() / "checkpoints";
  CHECK((!fs::exists(checkpoints) || fs::is_empty(checkpoints)));
  CHECK_THAT(modules::read_file(dir.path() / "log.txt", 1 << 20),
             Contains("step 2: checkpoint not saved") && Contains("weights.safetensors") ||
                 Contains("File too large"));
  // With space again, the same command trains from the start and saves.
  CHECK(run_toy(toy_config(dir.path(), {{"steps", 4}}, {{"width", 64}})).saved);
}
