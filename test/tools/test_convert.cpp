// cosmos-convert from outside: what it writes, what it says, and that it leaves nothing half done.

#include <catch2/catch.hpp>

#include "modules/hub/atomic_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/pipeline_folder.h"
#include "modules/hub/registry.h"
#include "modules/hub/weight_folder.h"
#include "modules/lora/files.h"
#include "modules/registry.h"
#include "test/support/errors.h"
#include "test/support/program.h"
#include "test/support/temp_folder.h"

using namespace cosmos;
using namespace cosmos::modules;
using cosmos::test::Answer;
using cosmos::test::has;
using cosmos::test::TempFolder;

namespace {

Answer convert(const std::string& arguments) {
  return cosmos::test::run_program("cosmos-convert", arguments);
}

std::shared_ptr<Model> tiny_dit() {
  register_builtin_models();
  return make_model({{"_class_name", "CosmosTransformer3DModel"},
                     {"_diffusers_version", "0.42.1"},
                     {"_name_or_path", "/home/someone/base"},
                     {"in_channels", 4},
                     {"out_channels", 4},
                     {"num_attention_heads", 2},
                     {"attention_head_dim", 12},
                     {"num_layers", 1},
                     {"mlp_ratio", 2.0},
                     {"text_embed_dim", 8},
                     {"adaln_lora_dim", 4},
                     {"max_size", {4, 8, 8}},
                     {"extra_pos_embed_type", nullptr}},
                    "test");
}

// A base with licence and card, and an adapter for it.
struct Fixture {
  Fixture() : base((folder / "base").string()), adapter((folder / "adapter").string()) {
    auto model = tiny_dit();
    save_model(base, *model);
    write_file(folder / "base" / "LICENSE", "terms");
    apply_lora(*model, {.rank = 2, .target_modules = Json::array({"to_q"})});
    torch::NoGradGuard no_grad;
    for (const auto& layer : lora_layers(*model)) layer.adapter->lora_B.fill_(0.1);
    save_peft_adapter(adapter, *model);
    merge_lora(*model);
    merged = file_tensors(*model);
  }
  std::string out(const std::string& name) const { return (folder / name).string(); }

  TempFolder folder;
  std::string base, adapter;
  TensorMap merged;
};

}  // namespace

TEST_CASE("cosmos-convert casts, shards, and writes licence and card", "[convert]") {
  Fixture f;
  const Answer done = convert("cast --model " + f.base + " --output " + f.out("out") +
                              " --dtype bfloat16 --max-shard-size 10KB --base-model nvidia/x");
  INFO(done.text);
  REQUIRE(done.code == 0);
  const WeightFolder before(f.base), after(f.out("out"));
  REQUIRE(before.names() == after.names());
  for (const auto& name : before.names()) {
    const Tensor x = after.get(name);
    CHECK(torch::equal(x, before.get(name).to(x.scalar_type())));
  }
  CHECK(after.info("proj_out.weight").dtype == torch::kBFloat16);
  CHECK(std::filesystem::exists(f.out("out") + "/diffusion_pytorch_model.safetensors.index.json"));
  CHECK(read_file(f.out("out") + "/LICENSE", 99) == "terms");
  const std::string card = read_file(f.out("out") + "/README.md", 9999);
  CHECK(has(card, "nvidia/x"));
  const std::string config = read_file(f.out("out") + "/config.json", 9999);
  CHECK(has(config, "\"_diffusers_version\": \"0.42.1\""));
  for (const std::string& text : {card, config}) {
    CHECK(text.find(f.folder.path().string()) == std::string::npos);
    CHECK(text.find("/home") == std::string::npos);
  }
}

TEST_CASE("cosmos-convert merges adapters into components and pipelines", "[convert]") {
  Fixture f;
  std::filesystem::create_directories(f.folder / "pipe");
  std::filesystem::rename(f.base, f.folder / "pipe" / "transformer");
  write_pipeline_index(
      f.folder / "pipe",
      {.class_name = "P",
       .components = {{"transformer", {"diffusers", "CosmosTransformer3DModel"}}}});
  for (const std::string& base : {f.out("pipe"), f.out("pipe/transformer")}) {
    const Answer done =
        convert("merge --model " + base + " --adapter " + f.adapter + " --output " + f.out("out") +
                " --overwrite --base-model nvidia/x --data 'two clips'");
    INFO(done.text);
    REQUIRE(done.code == 0);
    const std::string component = base == f.out("pipe") ? "/transformer" : "";
    const WeightFolder after(f.out("out") + component);
    for (const auto& [name, tensor] : f.merged) CHECK(torch::allclose(after.get(name), tensor));
    CHECK(has(read_file(f.out("out") + "/README.md", 9999), "two clips"));
  }
}

TEST_CASE("cosmos-convert translates adapters and back", "[convert]") {
  Fixture f;
  const std::string common = "adapter --base-model nvidia/x --model " + f.base;
  REQUIRE(convert(common + " --adapter " + f.adapter + " --format diffusers --output " + f.out("d"))
              .code == 0);
  REQUIRE(
      convert(common + " --adapter " + f.out("d") + " --format peft --output " + f.out("p")).code ==
      0);
  const TensorMap a = load_safetensors(f.adapter + "/adapter_model.safetensors");
  const TensorMap b = load_safetensors(f.out("p") + "/adapter_model.safetensors");
  REQUIRE(a.size() == b.size());
  for (const auto& [name, tensor] : a) CHECK(torch::equal(tensor, b.at(name)));
}

TEST_CASE("cosmos-convert takes NVIDIA's files in and gives them back", "[convert]") {
  Fixture f;
  const auto run = [](const std::string& arguments) {
    const Answer done = convert(arguments);
    INFO(done.text);
    REQUIRE(done.code == 0);
    return done.text;
  };
  const std::string native = f.out("native.pt"), folder = f.out("imported");
  CHECK(has(run("native --model " + f.base + " --output " + native), "created: net.pos_embedder"));
  run("import --model " + native + " --output " + folder + " --set 'rope_scale=[2,1,1]'");
  const WeightFolder before(f.base), after(folder);
  REQUIRE(before.names() == after.names());
  for (const auto& name : before.names()) CHECK(torch::equal(after.get(name), before.get(name)));
  CHECK(has(read_file(folder + "/conversion.txt", 1 << 20), "dropped: net.pos_embedder.seq"));
  CHECK(has(read_file(folder + "/config.json", 1 << 20), "\"rope_scale\""));
  // A pipeline, in bfloat16.
  run("import --model " + native + " --output " + f.out("pipe") + " --pipeline --dtype bfloat16");
  CHECK(read_pipeline_index(f.out("pipe")).components.at("scheduler").class_name ==
        "FlowMatchEulerDiscreteScheduler");
  CHECK(WeightFolder(f.out("pipe") + "/transformer").info("proj_out.weight").dtype ==
        torch::kBFloat16);
  run("native --model " + f.out("pipe") + " --output " + f.out("again.safetensors"));
}

TEST_CASE("cosmos-convert refuses bad input in one line and leaves nothing behind", "[convert]") {
  Fixture f;
  const auto refused = [&](const std::string& arguments, int code, const std::string& part) {
    const Answer outcome = convert(arguments);
    INFO(outcome.text);
    CHECK(outcome.code == code);
    CHECK(std::count(outcome.text.begin(), outcome.text.end(), '\n') == 1);
    CHECK(has(outcome.text, part));
    CHECK(!std::filesystem::exists(f.out("out")));
  };
  const std::string out = " --output " + f.out("out");
  refused("merge --model " + f.base + out, 2, "needs --adapter");
  refused("frobnicate", 2, "expected export, cast, merge, adapter, import or native");
  refused("export --model " + f.out("none") + out, 1, "no such folder");
  refused("cast --model " + f.base + out + " --dtype int3", 2, "int3");
  refused("export --model " + f.base + out + " --max-shard-size tiny", 2, "--max-shard-size");
  refused("export --model " + f.base + out + " --data /home/me/clips", 2, "names a local path");
  refused("merge --base-model x --model " + f.base + " --adapter " + f.base + out, 1,
          "no adapter here");
  refused("native --model " + f.base + " --output " + f.out("out") + " --ema", 2, "native takes");
  refused("native --model " + f.base + out, 1, "ending in .pt");
  refused("import --model " + f.base + out + " --vae x", 2, "goes with import --pipeline");
  refused("export --model " + f.base + out + " --set a=1", 2, "--set goes with import");
  refused("import --model " + f.base + out + " --data x", 2, "which import does not write");
  refused("import --model " + f.base + out + " --set rope", 2, "expected KEY=JSON");
  refused("import --model " + f.base + out, 1, "no model known here has these keys");
  write_file(f.folder / "base" / "bad.pt", std::string("\x80\x02") + "cos\nsystem\n.");
  refused("import --model " + f.base + "/bad.pt" + out, 1, "a bare pickle");
  write_file(f.folder / "base" / "diffusion_pytorch_model.safetensors", "damaged");
  refused("export --model " + f.base + out, 1, "safetensors");
  int files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(f.folder.path()))
    ++files;
  CHECK(files == 2);  // base and adapter
}
