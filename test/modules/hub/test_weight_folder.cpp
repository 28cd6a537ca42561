#include <catch2/catch.hpp>

#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "modules/hub/weight_folder.h"
#include "test/modules/hub/hostile.h"

using namespace cosmos;
using namespace cosmos::modules;
using cosmos::test::error_of;
using cosmos::test::TempFolder;

namespace {

TensorMap three_tensors() {
  return {{"a", torch::full({4}, 1.0)}, {"b", torch::full({4}, 2.0)}, {"c", torch::full({9}, 3.0)}};
}

std::string error_of_index(const TempFolder& folder, const std::string& file) {
  write_json(folder / "model.safetensors.index.json",
             {{"metadata", {{"total_size", 4}}}, {"weight_map", {{"a", file}}}});
  return error_of([&] { WeightFolder weights(folder.path()); });
}

}  // namespace

TEST_CASE("Shards are named, indexed and read as Hugging Face does", "[hub]") {
  TempFolder folder;
  save_weights(folder.path(), kDiffusersWeights, three_tensors(), /*max_shard_bytes=*/32);
  const Json index = read_json(folder / "diffusion_pytorch_model.safetensors.index.json");
  CHECK(index["metadata"]["total_size"] == 68);
  CHECK(index["weight_map"] == Json({{"a", "diffusion_pytorch_model-00001-of-00002.safetensors"},
                                     {"b", "diffusion_pytorch_model-00001-of-00002.safetensors"},
                                     {"c", "diffusion_pytorch_model-00002-of-00002.safetensors"}}));
  WeightFolder weights(folder.path());
  CHECK(weights.base_name() == kDiffusersWeights);
  CHECK(weights.names() == std::vector<std::string>{"a", "b", "c"});
  CHECK(torch::equal(weights.get("c"), three_tensors()["c"]));
  CHECK(!error_of([&] { weights.get("d"); }).empty());
}

TEST_CASE("A later save removes the shards of an earlier one", "[hub]") {
  TempFolder folder;
  write_file(folder / "model_card.md", "kept");
  save_weights(folder.path(), kTransformersWeights, three_tensors(), 1);
  save_weights(folder.path(), kTransformersWeights, three_tensors());
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  CHECK(names == std::vector<std::string>{"model.safetensors", "model_card.md"});
  CHECK(WeightFolder(folder.path()).names().size() == 3);
}

TEST_CASE("An index cannot lead out of its folder", "[hub]") {
  TempFolder outside, folder;
  save_safetensors(outside / "a.safetensors", {{"a", torch::ones({1})}});
  save_safetensors(folder / "a.safetensors", {{"a", torch::ones({1})}});
  const std::string absolute = (outside / "a.safetensors").string();
  CHECK(error_of_index(folder, "a.safetensors").empty());
  CHECK(error_of_index(folder, absolute).find("not a plain file name") != std::string::npos);
  CHECK(error_of_index(folder, "../" + outside.path().filename().string() + "/a.safetensors")
            .find("not a plain file name") != std::string::npos);
  CHECK(error_of_index(folder, "..").find("not a plain file name") != std::string::npos);
  CHECK(error_of_index(folder, std::string("a.safetensors\0x", 15)).find("not a plain") !=
        std::string::npos);
  std::filesystem::create_symlink(absolute, folder / "link.safetensors");
  CHECK(error_of_index(folder, "link.safetensors").find("leads out") != std::string::npos);
  CHECK(error_of_index(folder, "b.safetensors").find("missing") != std::string::npos);
}

TEST_CASE("Links into the blobs of the same Hugging Face cache are followed", "[hub]") {
  TempFolder cache;
  const auto snapshot = cache.path() / "models--x--y" / "snapshots" / "abc" / "transformer";
  std::filesystem::create_directories(snapshot);
  save_safetensors(cache.path() / "models--x--y" / "blobs" / "1234", {{"a", torch::ones({1})}});
  std::filesystem::create_symlink("../../../blobs/1234", snapshot / "s.safetensors");
  write_json(snapshot / "model.safetensors.index.json", {{"weight_map", {{"a", "s.safetensors"}}}});
  CHECK(WeightFolder(snapshot).get("a").item<float>() == 1.0f);
}

TEST_CASE("Index and shards must tell the same story", "[hub]") {
  TempFolder folder;
  save_safetensors(folder / "s.safetensors", {{"a", torch::ones({1})}, {"b", torch::ones({1})}});
  CHECK(error_of_index(folder, "s.safetensors").find("holds b") != std::string::npos);
  save_safetensors(folder / "s.safetensors", {{"b", torch::ones({1})}});
  CHECK(error_of_index(folder, "s.safetensors").find("a is not in s.safetensors") !=
        std::string::npos);
  write_file(folder / "model.safetensors.index.json", R"({"weight_map":{"a":1}})");
  CHECK(error_of([&] { WeightFolder weights(folder.path()); }).find("expected a file name") !=
        std::string::npos);
}

TEST_CASE("A folder without weights says what it expected", "[hub]") {
  TempFolder folder;
  CHECK(error_of([&] { WeightFolder weights(folder.path()); }).find("no weights here") !=
        std::string::npos);
  write_file(folder / "pytorch_model.bin", "");
  CHECK(error_of([&] { WeightFolder weights(folder.path()); }).find("pickled weights") !=
        std::string::npos);
  CHECK(error_of([&] { WeightFolder weights(folder / "none"); }).find("no such folder") !=
        std::string::npos);
}
