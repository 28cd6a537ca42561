#include <catch2/catch.hpp>

#include "modules/core/init.h"
#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/pipeline_folder.h"
#include "modules/hub/registry.h"
#include "modules/hub/weight_folder.h"
#include "test/modules/hub/hostile.h"
#include "test/support/tiny_model.h"

using namespace cosmos;
using namespace cosmos::modules;
using cosmos::test::error_of;
using cosmos::test::has;
using cosmos::test::TempFolder;
using cosmos::test::tiny_model;
using cosmos::test::TinyModel;

namespace {

void register_tiny() {
  register_model("TinyModel", [](const Json& config, const std::string&) {
    return std::make_shared<TinyModel>(config);
  });
}

}  // namespace

TEST_CASE("A model saved and loaded gives the same outputs, tied weight once", "[hub]") {
  register_tiny();
  TempFolder folder;
  auto model = tiny_model({{"_name_or_path", "/home/someone/x"}, {"unknown", {1, 2}}});
  save_model(folder.path(), *model, {.max_shard_bytes = 300});
  const Json config = read_json(folder / "config.json");
  CHECK(config == Json({{"_class_name", "TinyModel"},
                        {"_diffusers_version", "0.42.1"},
                        {"dim", 4},
                        {"unknown", {1, 2}}}));
  WeightFolder weights(folder.path());
  CHECK(weights.contains("stats.mean"));
  CHECK(weights.contains("tied"));
  CHECK(!weights.contains("blocks.0.norm"));
  auto loaded = load_model(folder.path());
  const Tensor x = torch::randn({2, 4});
  CHECK(torch::equal(loaded->run("forward", {{"x", x}})["sample"], model->forward(x)));
  CHECK(!loaded->is_training());
}

TEST_CASE("Loading in bfloat16 leaves float32 what the class keeps", "[hub]") {
  register_tiny();
  TempFolder folder;
  auto model = tiny_model();
  save_model(folder.path(), *model, {.dtype = torch::kBFloat16});
  CHECK(WeightFolder(folder.path()).info("head.weight").dtype == torch::kBFloat16);
  CHECK(WeightFolder(folder.path()).info("blocks.1.norm").dtype == torch::kFloat32);
  auto loaded = load_model(folder.path(), {.dtype = torch::kBFloat16});
  CHECK(loaded->named_parameters()["head.weight"].scalar_type() == torch::kBFloat16);
  CHECK(loaded->named_parameters()["tied"].scalar_type() == torch::kFloat32);
  CHECK(torch::equal(loaded->named_parameters()["head.weight"],
                     model->head->weight.to(torch::kBFloat16)));
}

TEST_CASE("One message lists all that does not fit, and the model stays as it was", "[hub]") {
  auto model = tiny_model();
  TensorMap tensors = file_tensors(*model);
  for (auto& [name, tensor] : tensors) tensor = tensor.clone().fill_(7);
  tensors.erase("head.bias");
  tensors["extra.weight"] = torch::zeros({1});
  tensors["head.weight"] = torch::zeros({3, 9});
  tensors["blocks.0.proj.bias"] = torch::zeros({8}, torch::kInt64);
  const Tensor before = model->head->weight.clone();
  const std::string error = error_of([&] { load_weights(*model, tensors, "DIR"); });
  CHECK(has(error, "DIR: weights do not fit TinyModel"));
  CHECK(has(error, "1 missing: head.bias"));
  CHECK(has(error, "1 unexpected: extra.weight"));
  CHECK(has(error, "head.weight: checkpoint has [3, 9], model wants [3, 8]"));
  CHECK(has(error, "blocks.0.proj.bias: checkpoint has Long, model wants Float"));
  CHECK(torch::equal(model->head->weight, before));
  CHECK(model->named_parameters()["blocks.0.norm"][0].item<float>() == 1.0f);
}

TEST_CASE("A tied weight loads under either of its names", "[hub]") {
  auto model = tiny_model();
  TensorMap tensors = file_tensors(*model);
  tensors["blocks.0.norm"] = torch::full({4}, 5.0);
  tensors.erase("tied");
  load_weights(*model, tensors, "DIR");
  CHECK(model->named_parameters()["tied"][0].item<float>() == 5.0f);
}

TEST_CASE("Configs that name no known model are refused with a hint", "[hub]") {
  register_tiny();
  CHECK(has(error_of([] {
              make_model({{"_class_name", "TinyModle"}}, "c");
            }),
            "did you mean TinyModel?"));
  CHECK(has(error_of([] { make_model({{"dim", 1}}, "c"); }), "names no class"));
  CHECK(has(error_of([] { make_model(Json::array(), "c"); }), "expected an object"));
  CHECK(has(error_of([] {
              make_model({{"_class_name", "TinyModel"}, {"dim", -4}}, "c");
            }),
            "cannot build TinyModel"));
  CHECK(make_model({{"architectures", {"TinyModel"}}}, "c")->class_name() == "TinyModel");
  TempFolder folder;
  CHECK(has(error_of([&] { load_model(folder / "none"); }), "no such folder"));
  CHECK(has(error_of([&] { load_model(folder.path()); }), "config.json: cannot open"));
}

TEST_CASE("A pipeline folder keeps its components and every other key", "[hub]") {
  TempFolder folder;
  std::filesystem::create_directories(folder / "transformer");
  const Json json = {{"_class_name", "SomePipeline"},
                     {"_diffusers_version", "0.42.1"},
                     {"transformer", {"diffusers", "CosmosTransformer3DModel"}},
                     {"safety_checker", {nullptr, nullptr}},
                     {"flag", true}};
  write_json(folder / "model_index.json", json);
  const PipelineIndex index = read_pipeline_index(folder.path());
  CHECK(index.components.at("transformer").class_name == "CosmosTransformer3DModel");
  CHECK(index.components.at("safety_checker").class_name.empty());
  write_pipeline_index(folder.path(), index);
  CHECK(read_json(folder / "model_index.json") == json);
  std::filesystem::remove(folder / "transformer");
  CHECK(has(error_of([&] { read_pipeline_index(folder.path()); }), "transformer is missing"));
}
