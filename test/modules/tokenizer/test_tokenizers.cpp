// The tokenizers against diffusers' numbers, and against themselves: streams, tiles, gradients.
#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>

#include "modules/hub/registry.h"
#include "modules/registry.h"
#include "modules/tokenizer/cosmos_init.h"
#include "modules/tokenizer/linear_baseline.h"
#include "modules/tokenizer/patches.h"
#include "modules/tokenizer/tiles.h"
#include "test/modules/tokenizer/tokenizers.h"

using namespace cosmos;
using namespace cosmos::modules;
using namespace cosmos::test;

namespace {

void check_values(const Tensor& got, const Json& want, const std::string& what) {
  const Tensor flat = got.detach().flatten();
  const int64_t stride = std::max<int64_t>(1, flat.numel() / 24);
  const Tensor kept = flat.slice(0, 0, flat.numel(), stride);
  const Tensor expected = torch::tensor(want.get<std::vector<double>>(), torch::kFloat32);
  INFO(what);
  REQUIRE(kept.sizes() == expected.sizes());
  CHECK(relative(kept, expected) < 2e-5);
}

struct Kind {
  const char* name;
  const Json& config;
  int64_t time, space;
};
std::vector<Kind> kinds() {
  return {{"AutoencoderKLCosmos", cosmos_config(), 4, 8},
          {"AutoencoderKLWan", wan_config(), 4, 4},
          {"AutoencoderKLWan", wan22_config(), 4, 8}};
}

}  // namespace

TEST_CASE("tokenizers give the numbers of diffusers", "[tokenizer][golden]") {
  std::ifstream file(COSMOS_SOURCE_DIR "/test/golden/tokenizers.json");
  for (const Json& item : Json::parse(file)) {
    INFO(item["name"]);
    auto model = make(item["class"], item["config"]);
    const Tensor video = wave(item["shape"].get<std::vector<int64_t>>(), 0.5);
    check_values(model->run("encode", {{"sample", video}})["latent"], item["latent"], "latent");
    const Tensor sample = model->run("forward", {{"sample", video}})["sample"];
    check_values(sample, item["sample"], "sample");
    sample.square().mean().backward();
    const std::vector<double> norms = item["grad_norms"];  // in the order of names
    const double largest = *std::max_element(norms.begin(), norms.end());
    const auto parameters = model->named_parameters();
    std::vector<std::string> names = parameters.keys();
    std::sort(names.begin(), names.end());
    REQUIRE(names.size() == norms.size());
    for (std::size_t i = 0; i < names.size(); ++i) {
      INFO(names[i]);
      const Tensor& grad = parameters[names[i]].grad();
      REQUIRE(grad.defined());
      CHECK(grad.norm().item<double>() == Approx(norms[i]).epsilon(2e-4).margin(1e-6 * largest));
    }
  }
}

TEST_CASE("a clip in a stream equals the clip as a whole", "[tokenizer]") {
  torch::NoGradGuard no_grad;
  for (const Kind& kind : kinds()) {
    INFO(kind.name << " " << kind.config);
    auto model = make(kind.name, kind.config);
    const Tensor video = wave({1, 3, 13, 16, 24}, 0.5);
    const Tensor latents = model->encode(video).mode();
    CHECK(latents.size(2) == 4);
    EncoderStream encoder(*model);
    Tensors parts;
    for (int64_t t = 0; t < 13; t += 3) {  // chunks that do not match the compression
      const Posterior part = encoder.push(video.narrow(2, t, std::min<int64_t>(3, 13 - t)));
      if (part.mean.defined()) parts.push_back(part.mode());
    }
    encoder.finish();
    CHECK(relative(torch::cat(parts, 2), latents) < 1e-5);

    const Tensor whole = model->decode(latents);
    CHECK(whole.sizes() == video.sizes());
    DecoderStream decoder(*model);
    parts.clear();
    for (int64_t t = 0; t < 4; ++t) parts.push_back(decoder.push(latents.narrow(2, t, 1)));
    CHECK(relative(torch::cat(parts, 2), whole) < 1e-5);
  }
}

TEST_CASE("what a Wan stream keeps does not grow with the clip", "[tokenizer]") {
  torch::NoGradGuard no_grad;
  auto model = make("AutoencoderKLWan", wan_config());
  EncoderStream stream(*model);
  stream.push(wave({1, 3, 5, 8, 8}, 0));
  stream.push(wave({1, 3, 4, 8, 8}, 0));
  const int64_t bytes = stream.bytes();
  for (int i = 0; i < 3; ++i) stream.push(wave({1, 3, 8, 8, 8}, 0));
  CHECK(stream.bytes() == bytes);
  stream.push(wave({1, 3, 2, 8, 8}, 0));
  CHECK_THROWS_WITH(stream.finish(), Catch::Contains("2 frames that make no latent frame"));
}

TEST_CASE("tiles of a local function join to the whole, and seams go over linearly",
          "[tokenizer]") {
  const TileGrid in{{16, 16}, {12, 8}}, out{{8, 8}, {6, 4}};
  const Tensor x = torch::randn({1, 2, 3, 40, 28});
  const auto halve = [](const Tensor& tile, int64_t) {
    return torch::avg_pool3d(tile, {1, 2, 2}, {1, 2, 2});
  };
  CHECK(torch::allclose(run_tiled(x, in, out, halve), halve(x, 0), 1e-5, 1e-6));
  CHECK(tile_count(in, 40, 28) == 16);
  const auto number = [](const Tensor& tile, int64_t index) {
    return torch::full({1, 1, 1, tile.size(3) / 2, tile.size(4) / 2}, static_cast<double>(index));
  };
  const Tensor ramp = run_tiled(x.narrow(3, 0, 8).narrow(4, 0, 16), in, out, number).flatten();
  CHECK(ramp.slice(0, 0, 8).equal(torch::tensor({0.F, 0.F, 0.F, 0.F, 0.F, 0.25F, 0.5F, 0.75F})));
}

TEST_CASE("a tiled tokenizer blends the latents of its tiles", "[tokenizer]") {
  torch::NoGradGuard no_grad;
  auto model = make("AutoencoderKLWan", wan_config());
  const Tensor video = wave({1, 3, 5, 40, 56}, 0.5) * 0.5;
  const Tensor whole = model->encode(video).mode();
  const Tensor corner = model->encode(video.narrow(3, 0, 32).narrow(4, 0, 32)).mode();
  const Tensor decoded = model->decode(corner);
  model->set_tiling(Tiling{32, 32, 16, 16});
  const Tensor tiled = model->encode(video).mode();
  REQUIRE(tiled.sizes() == whole.sizes());
  CHECK(relative(tiled.narrow(3, 0, 4).narrow(4, 0, 4), corner.narrow(3, 0, 4).narrow(4, 0, 4)) <
        1e-5);
  CHECK(relative(tiled, whole) > 1e-3);  // a tile's attention sees the tile
  const Tensor back = model->decode(tiled);
  CHECK(back.sizes() == video.sizes());
  CHECK(relative(model->decode(corner), decoded) < 1e-5);  // no larger than a tile
  CHECK_THROWS_WITH(model->set_tiling(Tiling{30, 32, 16, 16}),
                    Catch::Contains("both must be multiples of 4"));
}

TEST_CASE("the Haar transform is undone by its inverse and keeps means", "[tokenizer]") {
  for (int64_t p : {1, 2, 4}) {
    for (PatchType type : {PatchType::kHaar, PatchType::kRearrange}) {
      const Tensor video = torch::randn({2, 3, 9, 8, 12}, torch::kFloat64);
      const Tensor patches = patchify(video, p, type, /*first=*/true);
      CHECK(patches.sizes() == at::IntArrayRef({2, 1 + 8 / p, 8 / p, 12 / p, 3 * p * p * p}));
      CHECK(torch::allclose(unpatchify(patches, p, type, true), video));
      const Tensor later = video.narrow(2, 1, 8);
      CHECK(torch::allclose(unpatchify(patchify(later, p, type, false), p, type, false), later));
    }
  }
  const Tensor flat = patchify(torch::full({1, 1, 1, 4, 4}, 0.7), 4, PatchType::kHaar, true);
  CHECK(flat[0][0][0][0][0].item<double>() == Approx(0.7));
  CHECK(flat.flatten().slice(0, 1).abs().max().item<double>() < 1e-6);
  const Tensor video = torch::randn({1, 3, 2, 6, 4});
  CHECK(torch::equal(unpatchify_space(patchify_space(video, 2), 2), video));
}

TEST_CASE("gradients reach every parameter of a tokenizer", "[tokenizer]") {
  for (const Kind& kind : kinds()) {
    auto model = make(kind.name, kind.config);
    const Posterior latents = model->encode(wave({1, 3, 9, 16, 16}, 0.5));
    const Tensor z = latents.sample(wave(latents.mean.sizes(), 0.1));
    (model->decode_unclamped(z).square().mean() + latents.kl()).backward();
    for (const auto& parameter : model->named_parameters()) {
      INFO(kind.name << " " << parameter.key());
      REQUIRE(parameter.value().grad().defined());
      // Softmax does not see a bias of the keys.
      const bool unseen = parameter.key().ends_with("to_k.bias");
      CHECK((parameter.value().grad().abs().sum().item<double>() > 0) != unseen);
    }
  }
}

TEST_CASE("a Wan picture leaves the layers of time without a gradient", "[tokenizer]") {
  const auto model = make("AutoencoderKLWan", {{"base_dim", 8},
                                               {"z_dim", 4},
                                               {"dim_mult", {1, 2}},
                                               {"num_res_blocks", 1},
                                               {"temperal_downsample", {true}}});
  model->encode(torch::rand({1, 3, 1, 8, 8})).mode().sum().backward();
  for (const auto& item : model->named_parameters()) {
    if (item.key().find("time_conv") == std::string::npos) continue;
    INFO(item.key());
    CHECK(!item.value().grad().defined());
  }
}

TEST_CASE("training starts from passing through: residual parts add next to nothing",
          "[tokenizer]") {
  torch::manual_seed(1);
  AutoencoderKLCosmos model(cosmos_config());
  const Tensor clips = wave({2, 3, 5, 16, 16}, 0.5);
  init_for_training(model, clips);
  const auto parameters = model.named_parameters();
  const Tensor time = parameters["encoder.conv_in.conv_t.weight"];
  CHECK(torch::equal(time.select(2, 2).flatten(1), torch::eye(time.size(0))));
  CHECK(time.narrow(2, 0, 2).abs().max().item<double>() == 0);
  CHECK(parameters["encoder.mid_block.attentions.0.to_out.0.weight"].abs().max().item<double>() ==
        0);
  CHECK(parameters["decoder.up_blocks.0.resnets.0.conv2.conv_s.weight"].abs().max().item<double>() <
        1e-2);
  torch::NoGradGuard no_grad;
  const double power = model.decode(model.encode(clips).mode()).square().mean().item<double>();
  CHECK(power > 1e-5);
  CHECK(power < 0.1);
}

TEST_CASE("the linear baseline is exact with all components and worse with fewer", "[tokenizer]") {
  const Tensor video = torch::randn({2, 3, 5, 16, 16});
  double last = 1e-4;
  for (int64_t components : {48, 24, 6}) {
    LinearBaseline baseline(4, 2, components);
    CHECK_THROWS_WITH(baseline.reconstruct(video), Catch::Contains("no clips"));
    baseline.add(video);
    const Tensor back = baseline.reconstruct(video);
    REQUIRE(back.sizes() == video.sizes());
    const double error = relative(back, video);
    CHECK((components == 48 ? error < last : error > last));
    last = error;
  }
}

TEST_CASE("latents are normalised and restored", "[tokenizer]") {
  auto model = make("AutoencoderKLWan", wan_config());
  const Tensor z = torch::randn({1, 2, 3, 4, 4});
  const Tensor n = model->normalize_latents(z);
  CHECK(torch::allclose(n.select(1, 0), (z.select(1, 0) - 0.5) / 2));
  CHECK(torch::allclose(model->denormalize_latents(n), z, 1e-5, 1e-6));
  // Statistics per latent frame (Cosmos 1): frames beyond the last use the last.
  LatentStats stats;
  stats.mean = {{0, 1, 10, 11}};
  stats.std = {{1, 1, 1, 1}};
  model->set_latent_stats(stats);
  const Tensor shifted = z - model->normalize_latents(z);
  CHECK(shifted[0][0][0][0][0].item<double>() == Approx(0).margin(1e-6));
  CHECK(shifted[0][1][2][0][0].item<double>() == Approx(11));
  CHECK(model->config_json()["latents_mean"] == Json::parse("[0.0, 1.0, 10.0, 11.0]"));
}

TEST_CASE("tokenizer configs keep what they do not know and refuse what cannot be", "[tokenizer]") {
  Json config = wan_config();
  config["force_upcast"] = false;
  const Json written = AutoencoderKLWan(config).config_json();
  CHECK(written["force_upcast"] == false);
  CHECK(written["_class_name"] == "AutoencoderKLWan");
  CHECK(written["decoder_base_dim"].is_null());
  CHECK(CosmosVaeConfig().stats.mean->size() == 256);
  config["temperal_downsample"] = Json::array({true});
  CHECK_THROWS_WITH(AutoencoderKLWan(config), Catch::Contains("expected 2 values"));
  Json cosmos = cosmos_config();
  cosmos["patch_type"] = "harr";
  CHECK_THROWS_WITH(AutoencoderKLCosmos(cosmos), Catch::Contains("expected haar or rearrange"));

  register_builtin_models();
  cosmos["_class_name"] = "AutoencoderKLCosmos";
  CHECK_THROWS_WITH(make_model(cosmos, "vae/config.json"),
                    "vae/config.json: patch_type: expected haar or rearrange, got \"harr\"");

  auto model = make("AutoencoderKLWan", wan_config());
  CHECK_THROWS_WITH(model->encode(torch::zeros({1, 3, 4, 8, 8})),
                    "sample: 4 frames; this tokenizer takes 1 + 4 k frames: 1 or 5");
  CHECK_THROWS_WITH(model->encode(torch::zeros({1, 3, 5, 8, 10})),
                    Catch::Contains("must be multiples of 4"));
  CHECK_THROWS_WITH(model->run("encode", {{"x", torch::zeros({1})}}),
                    Catch::Contains("x is not an input"));
}
