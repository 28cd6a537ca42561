// The discrete and image members of Cosmos Tokenizer: shapes, codes, streams, gradients. Their
// numbers are NVIDIA's: test/reference/nvidia_tokenizer_proof.py and the golden file.

#include <catch2/catch.hpp>

#include "modules/hub/json_file.h"
#include "modules/hub/registry.h"
#include "modules/registry.h"
#include "modules/tokenizer/fsq_codes.h"
#include "modules/tokenizer/image_tokenizer.h"
#include "modules/tokenizer/patches.h"
#include "test/modules/hub/hostile.h"
#include "test/modules/tokenizer/tokenizers.h"

using namespace cosmos;
using namespace cosmos::modules;
using namespace cosmos::test;

namespace {

const std::vector<int64_t> kLevels = {8, 5, 3};

std::shared_ptr<VideoTokenizer> family(const std::string& name) {
  register_builtin_models();
  Json config = {{"channels", 32},
                 {"channel_multipliers", {1, 2}},
                 {"num_layers", 1},
                 {"z_channels", 4},
                 {"latent_channels", 3}};
  if (name == "CosmosDiscreteVideoTokenizer") {
    config = cosmos_config();
    config.erase("latents_mean");
    config.erase("latents_std");
    config["z_channels"] = 5;
  }
  if (name != "CosmosImageTokenizer") config["levels"] = kLevels;
  config["_class_name"] = name;
  auto model = std::dynamic_pointer_cast<VideoTokenizer>(make_model(config, "test"));
  REQUIRE(model != nullptr);
  model->eval();
  fill(*model);
  return model;
}

// The values that tokenizer_golden.py keeps of an output.
void check_kept(const Tensor& got, const Json& want) {
  const Tensor flat = got.flatten();
  const int64_t stride = std::max<int64_t>(1, flat.numel() / 24);
  const Tensor expected = torch::tensor(want.get<std::vector<double>>(), torch::kFloat32);
  const Tensor kept = flat.slice(0, 0, flat.numel(), stride);
  REQUIRE(kept.sizes() == expected.sizes());
  CHECK(relative(kept, expected) < 2e-5);
}

}  // namespace

TEST_CASE("The family gives the numbers of NVIDIA's code", "[tokenizer][family][golden]") {
  register_builtin_models();
  const torch::NoGradGuard no_grad;
  for (const Json& item : read_json(COSMOS_SOURCE_DIR "/test/golden/nvidia_tokenizers.json")) {
    Json config = item["config"];
    config["_class_name"] = item["class"];
    INFO(item["class"]);
    const auto model = make_model(config, "golden");
    model->eval();
    fill(*model);
    const Tensor sample = wave(item["shape"].get<std::vector<int64_t>>(), 0.5);
    TensorMap coded = model->run("encode", {{"sample", sample}});
    check_kept(coded["latent"], item["latent"]);
    check_kept(model->run("decode", {{"latent", coded["latent"]}})["sample"], item["sample"]);
    if (item.contains("indices"))
      CHECK(coded["indices"]
                .flatten()
                .to(torch::kInt64)
                .equal(torch::tensor(item["indices"].get<std::vector<int64_t>>())));
  }
}

TEST_CASE("Codes and indices say the same", "[tokenizer][family]") {
  const Tensor z = torch::randn({2, 3, 4, 2, 5}) * 2;
  const Tensor codes = quantize(z, kLevels), indices = indices_of(codes, kLevels);
  CHECK(indices.sizes() == torch::IntArrayRef({2, 4, 2, 5}));
  CHECK(torch::equal(codes_of(indices, kLevels, torch::kFloat32), codes));
  CHECK(indices.max().item<int>() < 8 * 5 * 3);
  // Every code of the book comes back as itself.
  const Tensor all = torch::arange(120, torch::kInt32).view({1, 2, 6, 10});
  CHECK(torch::equal(indices_of(codes_of(all, kLevels, torch::kFloat32), kLevels), all));
  CHECK_THROWS_AS(codes_of(all + 1, kLevels, torch::kFloat32), Error);
  CHECK_THROWS_AS(codes_of(all.to(torch::kFloat32), kLevels, torch::kFloat32), Error);
}

TEST_CASE("Image patches are undone by their inverse, and keep means", "[tokenizer][family]") {
  const Tensor video = torch::randn({2, 3, 2, 8, 12});
  for (const int64_t p : {1, 2, 4})
    for (const PatchType type : {PatchType::kHaar, PatchType::kRearrange}) {
      const Tensor patches = patchify_images(video, p, type);
      CHECK(patches.sizes() == torch::IntArrayRef({2, 2, 8 / p, 12 / p, 3 * p * p}));
      CHECK(torch::allclose(unpatchify_images(patches, p, type), video, 1e-5, 1e-6));
      if (type == PatchType::kHaar)
        CHECK(torch::allclose(patches[0][0][0][0].slice(0, 0, 3),
                              video.slice(3, 0, p).slice(4, 0, p)[0].select(1, 0).mean({1, 2}),
                              1e-5, 1e-6));
    }
}

TEST_CASE("Discrete tokenizers write codes and indices and decode either", "[tokenizer][family]") {
  const torch::NoGradGuard no_grad;
  for (const std::string name : {"CosmosDiscreteVideoTokenizer", "CosmosDiscreteImageTokenizer"}) {
    const auto model = family(name);
    const bool image = model->is_image_tokenizer();
    const Tensor sample = image ? wave({2, 3, 16, 24}, 1) : wave({1, 3, 9, 16, 24}, 1);
    const TensorMap coded = model->run("encode", {{"sample", sample}});
    CHECK(coded.at("latent").dim() == sample.dim());
    CHECK(coded.at("indices").dim() == sample.dim() - 1);
    CHECK(coded.at("latent").abs().max().item<double>() <= 1);
    const Tensor by_code = model->run("decode", {{"latent", coded.at("latent")}}).at("sample");
    const Tensor by_index = model->run("decode", {{"indices", coded.at("indices")}}).at("sample");
    CHECK(torch::equal(by_code, by_index));
    CHECK(by_code.sizes() == sample.sizes());
    CHECK(torch::equal(model->run("forward", {{"sample", sample}}).at("sample"), by_code));
  }
}

TEST_CASE("A clip in a stream equals the clip as a whole, for every member",
          "[tokenizer][family]") {
  const torch::NoGradGuard no_grad;
  for (const std::string name : {"CosmosDiscreteVideoTokenizer", "CosmosImageTokenizer"}) {
    const auto model = family(name);
    const Tensor video = wave({1, 3, 9, 16, 16}, 2);
    const Tensor whole = model->encode(video).mode();
    CHECK(whole.size(2) == model->latent_frames(9));
    EncoderStream encoder(*model);
    DecoderStream decoder(*model);
    Tensors latents, frames;
    for (const Tensor& part : video.split(3, 2)) {
      const Posterior posterior = encoder.push(part);
      if (!posterior.mean.defined()) continue;
      latents.push_back(posterior.mode());
      frames.push_back(decoder.push(posterior.mode()));
    }
    encoder.finish();
    CHECK(relative(torch::cat(latents, 2), whole) < 1e-5);
    CHECK(relative(torch::cat(frames, 2), model->decode(whole)) < 1e-5);
  }
}

TEST_CASE("Gradients reach every parameter of every member", "[tokenizer][family]") {
  for (const std::string name :
       {"CosmosDiscreteVideoTokenizer", "CosmosDiscreteImageTokenizer", "CosmosImageTokenizer"}) {
    const auto model = family(name);
    const Posterior posterior = model->encode(wave({1, 3, 5, 16, 16}, 3));
    (model->decode_unclamped(posterior.mode()).square().mean() + posterior.kl()).backward();
    for (const auto& item : model->named_parameters()) {
      INFO(name << " " << item.key());
      CHECK(item.value().grad().defined());
    }
  }
}

TEST_CASE("Configs of the family refuse what cannot be", "[tokenizer][family]") {
  register_builtin_models();
  const auto refused = [](Json config, const std::string& name, const std::string& part) {
    config["_class_name"] = name;
    const std::string error = error_of([&] { make_model(config, "c.json"); });
    INFO(error << "  lacks  " << part);
    CHECK(error.find(part) != std::string::npos);
  };
  refused({{"channels", 20}}, "CosmosImageTokenizer", "multiple of 32");
  refused({{"levels", {4, 4}}}, "CosmosImageTokenizer", "that is a CosmosDiscreteImageTokenizer");
  refused(Json::object(), "CosmosDiscreteImageTokenizer", "that is a CosmosImageTokenizer");
  refused({{"levels", {4, 1}}}, "CosmosDiscreteVideoTokenizer", "at least 2");
  refused({{"spatial_compression_ratio", 64}}, "CosmosImageTokenizer", "levels for 5 halvings");
}
