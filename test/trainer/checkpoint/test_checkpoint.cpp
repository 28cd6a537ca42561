#include <catch2/catch.hpp>
#include <signal.h>
#include <sys/resource.h>

#include "modules/hub/atomic_file.h"
#include "modules/hub/safetensors.h"
#include "test/trainer/toy_recipe.h"
#include "trainer/checkpoint/crc32c.h"
#include "trainer/checkpoint/store.h"

using namespace cosmos;
using namespace cosmos::test;
using namespace cosmos::trainer;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

/// A checkpoint of one text file.
fs::path save_text(CheckpointStore& store, int64_t step, const std::string& text,
                   const Json& info = {{"seed", 1}}) {
  const fs::path dir = store.begin(step);
  return store.commit(step, info, write_files(dir, {{"model/weights", {.text = text}}}, 1));
}

fs::path newest_intact(const CheckpointStore& store, std::vector<std::string>& reports) {
  const std::vector<int64_t> steps = store.steps();
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const std::string error = error_of([&] { verify_checkpoint(store.path(*step)); });
    if (error.empty()) return store.path(*step).filename();
    reports.push_back(error);
  }
  return {};
}

std::string bytes_of(const fs::path& file) {
  return modules::read_file(file, 1 << 24);
}

/// Cuts [0, size) into `parts`, unevenly and with an empty one where it is small.
std::vector<std::pair<int64_t, int64_t>> cut(int64_t size, int64_t parts) {
  std::vector<std::pair<int64_t, int64_t>> ranges;
  for (int64_t i = 0; i < parts; ++i) {
    const RowRange rows = shard_rows(size, i, parts);
    ranges.emplace_back(rows.begin, rows.size());
  }
  return ranges;
}

/// Which box of a tensor of `sizes` rank (r, c) of a grid holds: rows and, where there are such,
/// columns.
Region box(const std::vector<int64_t>& sizes, int64_t r, int64_t rows, int64_t c, int64_t columns) {
  Region region = whole_region(sizes);
  if (!sizes.empty()) std::tie(region.offset[0], region.size[0]) = cut(sizes[0], rows)[r];
  if (sizes.size() > 1) std::tie(region.offset[1], region.size[1]) = cut(sizes[1], columns)[c];
  return region;
}

}  // namespace

TEST_CASE("CRC-32C gives the published check value, in one go or in pieces", "[checkpoint]") {
  CHECK(crc32c("123456789", 9) == 0xe3069283u);
  CHECK(crc32c("56789", 5, crc32c("1234", 4)) == 0xe3069283u);
  const std::string text(1000, 'x');
  CHECK(crc32c(text.data(), 1000) == crc32c(text.data() + 333, 667, crc32c(text.data(), 333)));
  // In any order: each part's share knows what follows it.
  CHECK((crc32c_share(crc32c("6789", 4), 0) ^ crc32c_share(crc32c("1", 1), 8) ^
         crc32c_share(crc32c("2345", 4), 4)) == 0xe3069283u);
}

TEST_CASE("Boxes written by any ranks in any order make the file that one process writes",
          "[checkpoint]") {
  torch::manual_seed(3);
  TempFolder dir;
  const TensorMap whole = {{"cube", torch::randn({5, 6, 7})},
                           {"matrix", torch::randn({7, 3}).to(torch::kBFloat16)},
                           {"row", torch::randn({1, 4}, torch::kFloat64)},
                           {"scalar", torch::tensor(3.5)},
                           {"nothing", torch::zeros({0, 4})},
                           {"vector", torch::randn({3})}};
  modules::save_safetensors(dir / "one.safetensors", whole, {{"by", "test"}});
  const auto [rows, columns] = GENERATE(table<int64_t, int64_t>({{1, 1}, {4, 1}, {1, 2}, {2, 3}}));
  fs::create_directories(dir / "many");
  FileSums sums;
  for (int64_t rank = rows * columns - 1; rank >= 0; --rank) {
    StateFile file{.metadata = {{"by", "test"}}, .head_mine = rank == 0};
    for (const auto& [name, tensor] : whole) {
      const int64_t r = rank / columns, c = rank % columns;
      const Region region = box(tensor.sizes().vec(), r, rows, c, columns);
      // A box that several hold is written by the first of them.
      const bool mine = (tensor.dim() > 0 || r == 0) && (tensor.dim() > 1 || c == 0);
      file.tensors[name] = {.info = modules::tensor_info(tensor),
                            .region = region,
                            .data = region_of(tensor, region).to(torch::kFloat64),
                            .mine = mine};
    }
    add_sums(sums, write_files(dir / "many", {{"w.safetensors", file}}, 2));
  }
  INFO(rows << " x " << columns);
  CHECK(bytes_of(dir / "many/w.safetensors") == bytes_of(dir / "one.safetensors"));
  CHECK(sums.at("w.safetensors").crc == crc32c_file(dir / "one.safetensors"));
  CHECK(sums.at("w.safetensors").bytes == fs::file_size(dir / "one.safetensors"));
}

TEST_CASE("Checkpoints are kept up to a number, the newest intact one is found", "[checkpoint]") {
  TempFolder dir;
  CheckpointStore store(dir.path() / "checkpoints", {.last = 2});
  std::vector<std::string> reports;
  CHECK(newest_intact(store, reports).empty());
  for (int64_t step : {10, 20, 30}) save_text(store, step, std::to_string(step));
  CHECK(store.steps() == std::vector<int64_t>{20, 30});
  CHECK(newest_intact(store, reports) == "step-00000030");
  CHECK(reports.empty());

  // One byte changed, same size: the checksum tells, read by one process or by three.
  std::ofstream(store.path(30) / "model/weights") << "31";
  CHECK(newest_intact(store, reports) == "step-00000020");
  REQUIRE(reports.size() == 1);
  CHECK_THAT(reports[0], Contains("step-00000030/model/weights: content does not match"));
  for (const int64_t step : {20, 30}) {
    FileSums sums;
    for (int64_t part = 0; part < 3; ++part) add_sums(sums, sum_part(store.path(step), part, 3));
    CHECK(error_of([&] { check_sums(store.path(step), sums); }).empty() == (step == 20));
  }
  std::ofstream(store.path(30) / "model/weights") << "3";
  CHECK_THAT(error_of([&] { verify_checkpoint(store.path(30)); }),
             Contains("model/weights: has 1 bytes, the manifest says 2"));
  fs::remove(store.path(30) / "model/weights");
  CHECK_THAT(error_of([&] { verify_checkpoint(store.path(30)); }),
             Contains("model/weights: missing"));
  fs::remove(store.path(30) / "trainer.json");
  CHECK(newest_intact(store, reports) == "step-00000020");
  CHECK_THAT(reports[1], Contains("not a checkpoint"));

  // Going on from step 20 puts the damaged one aside, so that retention cannot prefer it.
  CHECK(store.set_aside_after(20) == std::vector<int64_t>{30});
  save_text(store, 25, "25");
  CHECK(store.steps() == std::vector<int64_t>{20, 25});
}

TEST_CASE("Every n-th and the best checkpoints stay beside the last", "[checkpoint]") {
  TempFolder dir;
  CheckpointStore store(dir.path(), {.last = 1, .every = 20, .best = 2});
  const std::map<int64_t, double> losses = {{5, 0.4}, {10, 0.2}, {15, 0.3}, {25, 0.1}, {30, 0.9}};
  for (const auto& [step, loss] : losses) save_text(store, step, "x", {{"val_loss", loss}});
  CHECK(store.steps() == std::vector<int64_t>{10, 25, 30});
  save_text(store, 40, "without a validation");
  save_text(store, 45, "x");
  CHECK(store.steps() == std::vector<int64_t>{10, 25, 40, 45});
  store.sweep();
  CHECK(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()) == 4);
}

TEST_CASE("A save that does not come to its end leaves nothing under a final name",
          "[checkpoint]") {
  TempFolder dir;
  CheckpointStore store(dir.path(), {.last = 2});
  save_text(store, 1, "good");
  const fs::path work = store.begin(2);
  FileSums sums = write_files(work, {{"model/weights", {.text = "half"}}}, 1);
  sums["model/weights"].bytes = 8;  // another rank's half is not there
  CHECK_THAT(error_of([&] { store.commit(2, Json::object(), sums); }),
             Contains("model/weights: expected 8 bytes"));
  CHECK(store.steps() == std::vector<int64_t>{1});
  store.begin(3);  // of the next attempt: what lay about is gone
  CHECK(!fs::exists(work));
  store.abandon(3);
  CHECK(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()) == 1);
}

TEST_CASE("A manifest cannot lead out of its checkpoint", "[checkpoint]") {
  TempFolder dir;
  modules::write_json(
      dir.path() / "trainer.json",
      {{"format", 1}, {"step", 1}, {"files", {{"../secret", {{"bytes", 1}, {"crc32c", 1}}}}}});
  CHECK_THAT(error_of([&] { verify_checkpoint(dir.path()); }), Contains("leaves the checkpoint"));
}

TEST_CASE("Saving in the background changes nothing but who waits", "[checkpoint]") {
  TempFolder dir;
  const Json settings = {{"steps", 6}, {"save_every", 1}, {"ema", {{"kind", "power"}}}};
  std::map<std::string, std::string> files;
  for (const bool background : {true, false}) {
    Json how = settings;
    how["checkpoint"] = {{"background", background}, {"threads", background ? 3 : 1}};
    const fs::path run = dir / (background ? "background" : "waiting");
    const RunResult result = run_toy(toy_config(run, how));
    CHECK(result.saved);
    CHECK(CheckpointStore(run / "checkpoints").steps() == std::vector<int64_t>{5, 6});
    const Json manifest = verify_checkpoint(result.checkpoint);
    for (const auto& [name, entry] : manifest["files"].items()) {
      const std::string bytes = bytes_of(result.checkpoint / name);
      CHECK(files.emplace(name, bytes).first->second == bytes);
    }
  }
  CHECK(files.size() == 5);
}

TEST_CASE("A second location holds the same checkpoints and helps when the first is damaged",
          "[checkpoint]") {
  TempFolder dir;
  const Json settings = {
      {"steps", 4}, {"save_every", 2}, {"checkpoint", {{"second_dir", (dir / "second").string()}}}};
  const RunResult first = run_toy(toy_config(dir / "run", settings));
  const CheckpointStore second(dir / "second");
  CHECK(second.steps() == std::vector<int64_t>{2, 4});
  verify_checkpoint(second.path(4));
  std::ofstream(first.checkpoint / "optimizer.safetensors", std::ios::in).seekp(200) << "x";
  Json longer = settings;
  longer["steps"] = 5;
  CHECK(run_toy(toy_config(dir / "run", longer)).finished);
  CHECK_THAT(modules::read_file(dir / "run/log.txt", 1 << 20),
             Contains("skipping a damaged checkpoint") &&
                 Contains("resumed after step 4 from " + second.path(4).string()));
  // Where it cannot be written the first is saved all the same.
  fs::remove_all(dir / "second");
  std::ofstream(dir / "second") << "a file in the way";
  longer["steps"] = 6;
  CHECK(run_toy(toy_config(dir / "run", longer)).saved);
  CHECK_THAT(modules::read_file(dir / "run/log.txt", 1 << 20),
             Contains("step 6: no second copy of the checkpoint"));
}

TEST_CASE("A full disk fails the save, not the training", "[checkpoint]") {
  TempFolder dir;
  const bool background = GENERATE(true, false);
  // Files beyond the limit are refused (EFBIG), as a full disk refuses them.
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{.rlim_cur = 64 << 10, .rlim_max = before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const RunResult result = run_toy(toy_config(
      dir.path(), {{"steps", 4}, {"save_every", 2}, {"checkpoint", {{"background", background}}}},
      {{"width", 64}}));
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
