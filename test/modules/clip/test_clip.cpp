// CLIP's image tower and the aesthetic head against what transformers and torch gave
// (test/reference/clip_golden.py); files and folders they come in.

#include <catch2/catch.hpp>

#include "modules/clip/aesthetic.h"
#include "modules/clip/vision_model.h"
#include "modules/hub/json_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/pytorch_file.h"
#include "modules/hub/registry.h"
#include "modules/hub/safetensors.h"
#include "modules/registry.h"
#include "test/support/golden_model.h"
#include "test/support/temp_folder.h"

namespace cosmos::modules {
namespace {

using Catch::Matchers::Contains;

const Json kTower = {{"hidden_size", 12},      {"intermediate_size", 20},  {"projection_dim", 6},
                     {"num_hidden_layers", 1}, {"num_attention_heads", 2}, {"image_size", 9},
                     {"patch_size", 4}};

}  // namespace

TEST_CASE("CLIP's image tower and the aesthetic head give what the public classes give",
          "[clip][golden]") {
  const SafetensorsFile golden(COSMOS_SOURCE_DIR "/test/golden/clip.safetensors");
  const auto check = [&](auto make, const std::string& name) {
    const Json about = Json::parse(golden.metadata().at(name));
    const auto model = make(about["config"]);
    model->eval();
    const Tensor input = test::wave(about["shape"].get<std::vector<int64_t>>(), 0);
    test::check_golden(*model, golden, name, {{about["input"], input.to(torch::kFloat32)}});
  };
  check([](const Json& config) { return std::make_shared<ClipVisionModel>(config); }, "tower");
  check([](const Json& config) { return std::make_shared<AestheticPredictor>(config); }, "head");
}

TEST_CASE("a whole CLIPModel's folder gives its image tower", "[clip]") {
  torch::NoGradGuard no_grad;
  register_builtin_models();
  torch::manual_seed(2);
  ClipVisionModel tower(kTower);
  test::TempFolder folder;
  TensorMap tensors = file_tensors(tower);
  tensors["text_model.embeddings.token_embedding.weight"] = torch::ones({3, 4});
  tensors["text_projection.weight"] = torch::ones({6, 4});
  tensors["logit_scale"] = torch::ones({});
  tensors["vision_model.embeddings.position_ids"] = torch::arange(5).unsqueeze(0);
  save_safetensors(folder / "model.safetensors", tensors);
  Json vision = kTower;
  vision.erase("projection_dim");
  write_json(folder / "config.json", {{"architectures", {"CLIPModel"}},
                                      {"model_type", "clip"},
                                      {"projection_dim", 6},
                                      {"vision_config", vision}});
  const auto loaded = std::dynamic_pointer_cast<ClipVisionModel>(load_model(folder.path()));
  REQUIRE(loaded);
  const Tensor pixels = torch::randn({2, 3, 9, 9});
  CHECK(loaded->forward(pixels).equal(tower.forward(pixels)));
  CHECK(loaded->config_json()["projection_dim"] == 6);
  CHECK_THROWS_WITH(loaded->forward(torch::zeros({1, 3, 9, 8})), Contains("expected [B, 3, 9, 9]"));
}

TEST_CASE("an aesthetic head comes from a .pth file or safetensors", "[clip]") {
  torch::NoGradGuard no_grad;
  torch::manual_seed(3);
  AestheticPredictor head(Json{{"widths", {6, 5, 4, 3, 2, 1}}});
  test::TempFolder folder;
  const TensorMap tensors = file_tensors(head);
  save_pytorch_file(folder / "head.pth", lazy_tensors(tensors));
  save_safetensors(folder / "head.safetensors", tensors);
  const Tensor embeddings = torch::randn({4, 6}), scores = head.forward(embeddings);
  for (const char* name : {"head.pth", "head.safetensors"})
    CHECK(load_aesthetic(folder / name)->forward(7 * embeddings).allclose(scores, 1e-5, 1e-6));
  TensorMap other = tensors;
  other.erase("layers.4.weight");
  save_safetensors(folder / "other.safetensors", other);
  CHECK_THROWS_WITH(load_aesthetic(folder / "other.safetensors"),
                    Contains("a file without layers.4.weight"));
}

TEST_CASE("pictures are brought to the tower's size, the middle cut out", "[clip]") {
  Tensor frames = torch::zeros({2, 8, 20, 3}, torch::kUInt8);
  frames.slice(2, 6, 14).fill_(255);  // the middle square
  const ClipPixels plain{.mean = {0, 0, 0}, .std = {1, 1, 1}};
  CHECK(clip_pixels(frames, 8, plain).equal(torch::ones({2, 3, 8, 8})));
  CHECK(clip_pixels(frames, 4, plain).sizes() == at::IntArrayRef({2, 3, 4, 4}));
  CHECK(clip_pixels(frames, 4, plain).slice(3, 1, 3).eq(1).all().item<bool>());
  const Tensor high = clip_pixels(frames.transpose(1, 2).contiguous(), 8, {});
  CHECK(high.select(1, 1).allclose(torch::full({2, 8, 8}, (1 - 0.4578275) / 0.26130258)));
}

}  // namespace cosmos::modules
