// cosmos-generate with controls, from files to files.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "modules/dit/action_transformer.h"
#include "modules/hub/json_file.h"
#include "modules/hub/safetensors.h"
#include "modules/pipeline/memory.h"
#include "test/support/program.h"
#include "test/support/temp_folder.h"
#include "test/support/tiny_transfer.h"
#include "tools/controls.h"

using namespace cosmos;
using Catch::Matchers::Contains;
using cosmos::test::Answer;
using cosmos::test::TempFolder;

namespace {

struct Bench {
  Bench() {
    save_world_pipeline(dir / "pipeline", test::tiny_transfer_pipeline());
    Tensor video = torch::zeros({22, 16, 32, 3}, torch::kUInt8);
    for (int64_t t = 0; t < 22; ++t) video[t].narrow(1, t, 8).fill_(230);  // a bar that moves
    trainer::write_video(dir / "rgb.mp4", video, {.fps = 10, .quality = 2});
    trainer::write_png(dir / "half.png", video[12]);
  }
  std::string path(const std::string& name) const { return (dir / name).string(); }
  Answer generate(const std::string& options) const {
    return test::run_program("cosmos-generate",
                             "--pipeline " + path("pipeline") + " --output " + path("out.mp4") +
                                 " --output-tensors " + path("out.safetensors") +
                                 " --height 16 --width 32 --steps 2 --chunk-frames 9 " + options);
  }
  Tensor latents() const {
    return modules::load_safetensors(dir / "out.safetensors").at("latents");
  }

  TempFolder dir;
};

bool no_media() {
  if (!trainer::media_available()) std::cout << "SKIPPED: FFmpeg is not there\n";
  return !trainer::media_available();
}

}  // namespace

TEST_CASE("a control option's parts are told apart", "[generate]") {
  const auto parts = [](const std::string& text) {
    const auto c = tools::parse_control(text);
    return c.name + "|" + c.file + "|" + std::to_string(c.weight).substr(0, 4) + "|" + c.mask;
  };
  CHECK(parts("edge=a.mp4") == "edge|a.mp4|1.00|");
  CHECK(parts("edge=a.mp4:0.5@m.png") == "edge|a.mp4|0.50|m.png");
  CHECK(parts("depth=dir:x/a.mp4") == "depth|dir:x/a.mp4|1.00|");
  CHECK(parts("depth=dir:x/a.mp4:-2") == "depth|dir:x/a.mp4|-2.0|");
  CHECK(parts("blur:0.25") == "blur||0.25|");
  CHECK(parts("blur@m.mp4") == "blur||1.00|m.mp4");
  CHECK_THROWS_WITH(parts("=a.mp4"), Contains("expected NAME"));
  CHECK_THROWS_WITH(parts("edge=a@"), Contains("expected a file after @"));
  CHECK(tools::parse_weights("0.5,1,-2") == std::vector<double>{0.5, 1, -2});
  CHECK_THROWS_WITH(tools::parse_weights("1,,2"), Contains("--control-weight"));
  CHECK(parts("blur=a.mp4:0.5@1,0") == "blur|a.mp4|0.50|1,0");
}

TEST_CASE("weights of frames lie evenly over the clip", "[generate]") {
  const auto mask = tools::frame_weights({1, 0, 0.5}, 9, {.height = 2, .width = 3});
  const Tensor all = mask(0, 9), part = mask(6, 2);
  CHECK(all.sizes() == at::IntArrayRef({1, 1, 9, 2, 3}));
  const Tensor expected = torch::tensor({1.0, 0.75, 0.5, 0.25, 0.0, 0.125, 0.25, 0.375, 0.5});
  CHECK(all.select(3, 1).select(3, 2).flatten().allclose(expected));
  CHECK(part.equal(all.narrow(2, 6, 2)));
}

TEST_CASE("two controls, one with a mask, make a clip of several chunks", "[generate]") {
  if (no_media()) return;
  const Bench bench;
  const std::string controls = "--control-from " + bench.path("rgb.mp4") + " --control edge:0.7 " +
                               "--control depth=" + bench.path("rgb.mp4");
  const Answer answer = bench.generate(controls + "@" + bench.path("half.png"));
  INFO(answer.text);
  REQUIRE(answer.code == 0);
  CHECK(trainer::probe_video(bench.dir / "out.mp4").frames() == 22);
  CHECK(std::filesystem::exists(bench.dir / "out-frames/0021.png"));
  const Tensor masked = bench.latents();
  CHECK(masked.sizes() == at::IntArrayRef({1, 4, 6, 2, 4}));
  const Json record = modules::read_json(bench.dir / "out.json");
  CHECK(record["class"] == "Cosmos2_5_TransferPipeline");
  CHECK(record["num_frames"] == 22);
  CHECK(record["controls"]["edge"] == Json{{"weight", 0.7}, {"mask", false}});
  CHECK(record["controls"]["depth"]["mask"] == true);
  CHECK(record["resident_bytes"].size() == 3);
  REQUIRE(bench.generate(controls).code == 0);
  CHECK_FALSE(bench.latents().allclose(masked));
  REQUIRE(bench.generate(controls + "@1,0").code == 0);
  CHECK_FALSE(bench.latents().allclose(masked));
  REQUIRE(bench.generate(controls + " --num-frames 5").code == 0);
  CHECK(trainer::probe_video(bench.dir / "out.mp4").frames() == 5);
}

TEST_CASE("controls come as tensors too, with weights from the command line", "[generate]") {
  if (no_media()) return;
  const Bench bench;
  const Tensor rgb = trainer::read_video(bench.dir / "rgb.mp4", {.frames = 9});
  const Tensor edges = canny_edges(rgb, edge_thresholds(modules::Strength::kMedium));
  modules::save_safetensors(
      bench.dir / "in.safetensors",
      {{"controls.edge", trainer::channels_first(edges).unsqueeze(0).to(torch::kFloat32) / 255}});
  const std::string inputs = "--inputs " + bench.path("in.safetensors");
  const Answer answer = bench.generate(inputs + " --control edge:0.7");
  INFO(answer.text);
  REQUIRE(answer.code == 0);
  const Tensor from_tensors = bench.latents();
  REQUIRE(bench
              .generate("--control-from " + bench.path("rgb.mp4") +
                        " --control edge:0.7 --num-frames 9")
              .code == 0);
  CHECK(bench.latents().allclose(from_tensors, 1e-4, 1e-5));
  REQUIRE(bench.generate(inputs).code == 0);
  CHECK_FALSE(bench.latents().allclose(from_tensors));
}

TEST_CASE("controls that cannot be served end in one line", "[generate]") {
  if (no_media()) return;
  const Bench bench;
  const auto refused = [&](const std::string& options, const std::string& part) {
    const Answer answer = bench.generate(options);
    INFO(answer.text);
    CHECK(answer.code == 1);
    CHECK(std::count(answer.text.begin(), answer.text.end(), '\n') == 1);
    CHECK_THAT(answer.text, Contains("cosmos-generate: ") && Contains(part));
    CHECK_FALSE(std::filesystem::exists(bench.dir / "out.mp4"));
  };
  refused("", "needs a control video");
  refused("--control edge", "--control-from");
  refused("--control depth", "only edge and blur");
  refused("--control seg=" + bench.path("rgb.mp4"), "no control net for \"seg\"");
  refused("--control edge=" + bench.path("rgb.mp4") + "@1,2", "from 0 to 1");
  refused("--control edge=" + bench.path("none.mp4"), "none.mp4");
  refused("--control edge=" + bench.path("rgb.mp4") + " --control-strength strong", "very_low");
  refused("--control edge=" + bench.path("rgb.mp4") + " --overlap 9 --num-frames 20", "overlap");
}

TEST_CASE("a list of prompts makes a clip a line with one loading", "[generate]") {
  if (no_media()) return;
  const Bench bench;
  const Tensor embeds = torch::ones({1, 2, 8});
  modules::save_safetensors(bench.dir / "in.safetensors", {{"prompt_embeds", embeds}});
  const auto list = [&](const std::string& lines) {
    std::ofstream(bench.dir / "list.jsonl") << lines;
    return test::run_program("cosmos-generate",
                             "--pipeline " + bench.path("pipeline") + " --prompts " +
                                 bench.path("list.jsonl") + " --output " + bench.path("clips") +
                                 " --height 16 --width 32 --steps 2 --chunk-frames 9 --seed 4");
  };
  const std::string edge = R"("control": ["edge=rgb.mp4:0.7@half.png"], "num_frames": 9)";
  const Answer done = list("{\"name\": \"plain\", " + edge + "}\n\n{" + edge +
                           R"(, "inputs": "in.safetensors", "output_tensors": "b.safetensors"})" +
                           "\n{" + edge + R"(, "seed": 9, "output": "sub/c.mkv"})");
  INFO(done.text);
  REQUIRE(done.code == 0);
  CHECK(modules::read_json(bench.dir / "clips/plain.json")["seed"] == 4);
  CHECK(modules::read_json(bench.dir / "clips/000003.json")["text"] == "embeddings");
  CHECK(modules::read_json(bench.dir / "clips/sub/c.json")["seed"] == 9);
  CHECK(trainer::probe_video(bench.dir / "clips/sub/c.mkv").frames() == 9);
  // The same as one command.
  REQUIRE(bench
              .generate("--seed 4 --num-frames 9 --inputs " + bench.path("in.safetensors") +
                        " --control edge=" + bench.path("rgb.mp4") + ":0.7@" +
                        bench.path("half.png"))
              .code == 0);
  CHECK(modules::load_safetensors(bench.dir / "clips/b.safetensors")
            .at("latents")
            .equal(bench.latents()));

  std::filesystem::remove_all(bench.dir / "clips");
  // What the list says wrongly: not even the first clip is made.
  const auto refused = [&](const std::string& line, const std::string& part) {
    const Answer answer = list("{" + edge + "}\n{" + edge + ", " + line + "}\n");
    INFO(answer.text);
    CHECK(answer.code == 1);
    CHECK(std::count(answer.text.begin(), answer.text.end(), '\n') == 1);
    CHECK_THAT(answer.text, Contains("list.jsonl:2: ") && Contains(part));
    CHECK_FALSE(std::filesystem::exists(bench.dir / "clips"));
  };
  refused(R"("heigth": 16)", "did you mean height?");
  refused(R"("steps": "many")", "many");
  refused(R"("steps": [2])", "expected a text or a number");
  refused(R"("compat": "nvidia")", "no such setting");
  refused(R"("output": "000001.mp4")", "another line's");
  const Answer device = bench.generate("--device tpu");
  CHECK(device.code == 1);
  CHECK_THAT(device.text, Contains("--device: expected auto, cpu, cuda or cuda:N"));
}

TEST_CASE("a list goes on without the clips that cannot be made", "[generate]") {
  if (no_media()) return;
  const Bench bench;
  const std::string edge = R"("num_frames": 5, "control": ["edge=rgb.mp4"])";
  std::ofstream(bench.dir / "blocked") << "a file where a folder should be";
  std::ofstream(bench.dir / "list.jsonl")
      << "{" << edge << R"(, "video": "none.mp4", "name": "a"})"
      << "\n"
      << "{" << edge << R"(, "height": 20, "name": "b"})"
      << "\n"
      << "{" << edge << R"(, "name": "good"})"
      << "\n"
      << "{" << edge << R"(, "prompt": "a robot", "name": "c"})"
      << "\n"
      << "{" << edge << R"(, "name": "d", "output": "../blocked/d.mp4"})"
      << "\n"
      << "{" << edge << R"(, "name": "good too", "seed": 3})"
      << "\n";
  const auto run = [&](const std::string& more) {
    return test::run_program("cosmos-generate",
                             "--pipeline " + bench.path("pipeline") + " --prompts " +
                                 bench.path("list.jsonl") + " --output " + bench.path("clips") +
                                 " --height 16 --width 32 --steps 2 --chunk-frames 5" + more);
  };
  const Answer answer = run("");
  INFO(answer.text);
  CHECK(answer.code == 1);
  const auto told = [&](const std::string& start, const std::string& part) {
    std::istringstream lines(answer.text);
    int count = 0;
    for (std::string line; std::getline(lines, line);)
      count += line.find(start) != line.npos && line.find(part) != line.npos;
    CHECK(count == 1);
  };
  told("cosmos-generate: " + bench.path("list.jsonl") + ":1: ", "none.mp4");
  told("list.jsonl:2: ", "expected a multiple of 16");
  told("list.jsonl:4: ", "has no text_encoder/");
  told("list.jsonl:5: ", "blocked");
  told("cosmos-generate: ", "4 of 6 clips were not made");
  for (const char* name : {"a", "b", "c", "d"})
    CHECK_FALSE(std::filesystem::exists(bench.dir / "clips" / (std::string(name) + ".json")));
  for (const char* name : {"good", "good too"}) {
    CHECK(std::filesystem::exists(bench.dir / "clips" / (std::string(name) + ".json")));
    CHECK(trainer::probe_video(bench.dir / "clips" / (std::string(name) + ".mp4")).frames() == 5);
  }
}

TEST_CASE("a distilled model takes its own few steps", "[generate]") {
  if (no_media()) return;
  const Bench bench;
  const std::string edge = "--num-frames 9 --control edge=" + bench.path("rgb.mp4");
  const Answer answer = bench.generate("--distilled " + edge);
  INFO(answer.text);
  REQUIRE(answer.code == 0);
  const Tensor few = bench.latents();
  const Json record = modules::read_json(bench.dir / "out.json");
  CHECK(record["scheduler"]["_class_name"] == "CosmosDistilledScheduler");
  CHECK(record["guidance"] == 0.0);
  REQUIRE(bench.generate("--guidance 0 " + edge).code == 0);
  CHECK_FALSE(bench.latents().allclose(few));
  const Answer guided = bench.generate("--distilled --guidance 3 " + edge);
  CHECK(guided.code == 1);
  CHECK_THAT(guided.text, Contains("takes none, got 3"));
}

TEST_CASE("a robot's clip follows its actions, chunk by chunk", "[generate][action]") {
  if (no_media()) return;
  const Bench bench;
  modules::WorldPipeline pipeline = test::tiny_transfer_pipeline();
  modules::ActionConfig config{.dit = test::tiny_base_config(), .action_dim = 7};
  pipeline.transformer = std::make_shared<modules::CosmosActionTransformer3DModel>(config);
  test::fill(*pipeline.transformer);
  pipeline.control_nets.clear();
  pipeline.index.class_name = "Cosmos2_5_PredictBasePipeline";
  pipeline.index.components = {{"transformer", {"cosmos", "CosmosActionTransformer3DModel"}},
                               {"vae", {"diffusers", "AutoencoderKLCosmos"}},
                               {"scheduler", {"diffusers", "UniPCMultistepScheduler"}}};
  save_world_pipeline(bench.dir / "robot", pipeline);
  const auto generate = [&](const std::string& more) {
    return test::run_program("cosmos-generate",
                             "--pipeline " + bench.path("robot") + " --image " +
                                 bench.path("half.png") + " --output " + bench.path("out.mp4") +
                                 " --output-tensors " + bench.path("out.safetensors") +
                                 " --height 16 --width 32 --steps 2 --chunk-frames 5 " + more);
  };
  // Ten states: two chunks of four actions and one of one, which zeros fill up.
  const auto write = [&](const std::string& name, int changed) {
    Json json;
    for (int t = 0; t < 10; ++t) {
      json["state"].push_back({0.1 * t, 0, 0, 0.2 * t, 0, 0});
      json["continuous_gripper_state"].push_back(t >= changed ? 5.0 : 0.0);
    }
    modules::write_json(bench.dir / name, json);
    return " --actions " + bench.path(name);
  };
  const Answer answer = generate(write("a.json", 10));
  INFO(answer.text);
  REQUIRE(answer.code == 0);
  CHECK(trainer::probe_video(bench.dir / "out.mp4").frames() == 10);
  const Tensor calm = bench.latents();
  REQUIRE(generate(write("b.json", 6)).code == 0);  // from the second chunk on
  const Tensor gripping = bench.latents();
  CHECK(gripping.narrow(2, 0, 2).equal(calm.narrow(2, 0, 2)));
  CHECK_FALSE(gripping.narrow(2, 2, 1).allclose(calm.narrow(2, 2, 1)));

  const auto refused = [&](const std::string& options, const std::string& part) {
    const Answer bad = generate(options);
    INFO(bad.text);
    CHECK(bad.code == 1);
    CHECK_THAT(bad.text, Contains(part));
  };
  refused("", "is told a robot's actions, and none are given");
  refused(write("a.json", 10) + " --num-frames 14", "expected 1 to 10");
  modules::write_json(bench.dir / "c.json", {{"actions", {{1, 2}, {3, 4}}}});
  refused(" --actions " + bench.path("c.json"), "expected [actions, 7], got [2, 2]");
  CHECK_THAT(bench.generate("--control edge=" + bench.path("rgb.mp4") + write("a.json", 10)).text,
             Contains("takes none"));
}

TEST_CASE("wrong usage is one line", "[generate]") {
  for (const char* options : {"--pipeline x", "--pipeline x --output a.mp4 more"}) {
    const Answer answer = test::run_program("cosmos-generate", options);
    INFO(answer.text);
    CHECK(answer.code == 2);
    CHECK(std::count(answer.text.begin(), answer.text.end(), '\n') == 1);
    CHECK_THAT(answer.text, Contains("--help lists the options"));
  }
}

TEST_CASE("a guardrail is asked about the prompt and the clip, and obeyed", "[generate]") {
  if (no_media()) return;
  const Bench bench;
  const std::string edge = "--num-frames 5 --control edge=" + bench.path("rgb.mp4");
  const auto guarded = [&](const std::string& answers) {
    std::filesystem::remove(bench.dir / "asked");
    std::ofstream(bench.dir / "guard.sh")
        << "while read -r line; do echo \"$line\" >> " << bench.path("asked")
        << "; case \"$line\" in " << answers << " *) echo '{\"allowed\": true}' ;; esac; done\n";
    return bench.generate(edge + " --guardrail 'sh " + bench.path("guard.sh") + "'");
  };
  const std::string refuse = R"( echo '{"allowed": false, "reason": "not this"}' ;;)";
  Answer answer = guarded("");
  INFO(answer.text);
  REQUIRE(answer.code == 0);
  const Json record = modules::read_json(bench.dir / "out.json");
  CHECK(record["guardrail"]["prompt"] == "allowed");
  CHECK(record["guardrail"]["clip"] == "allowed");
  std::ifstream asked(bench.dir / "asked");
  std::string prompt, clip;
  std::getline(asked, prompt);
  std::getline(asked, clip);
  CHECK(Json::parse(prompt) == Json{{"stage", "prompt"}, {"prompt", ""}, {"negative_prompt", ""}});
  CHECK(Json::parse(clip)["clip"] == bench.path("out.mp4"));

  answer = guarded("*out.mp4*)" + refuse);
  CHECK(answer.code == 1);
  CHECK_THAT(answer.text, Contains("is refused, and not kept: not this"));
  for (const char* gone : {"out.mp4", "out-frames", "out.safetensors"})
    CHECK_FALSE(std::filesystem::exists(bench.dir / gone));
  CHECK(modules::read_json(bench.dir / "out.json")["guardrail"]["clip"] == "refused");

  answer = guarded("*negative*)" + refuse);
  CHECK(answer.code == 1);
  CHECK_THAT(answer.text, Contains("the prompt is refused: not this"));
  answer = guarded("*negative*) echo maybe ;;");
  CHECK(answer.code == 1);
  CHECK_THAT(answer.text, Contains("--guardrail"));
  CHECK(bench.generate(edge + " --guardrail /no/such/program").code == 1);
  REQUIRE(bench.generate(edge).code == 0);
  CHECK(modules::read_json(bench.dir / "out.json")["guardrail"] == "none");
}

TEST_CASE("a generation that would take more than --max-memory is refused", "[generate]") {
  if (no_media()) return;
  const Bench bench;
  const std::string edge = "--num-frames 5 --control edge=" + bench.path("rgb.mp4");
  const Answer tight = bench.generate(edge + " --max-memory 1KiB");
  INFO(tight.text);
  CHECK(tight.code == 1);
  CHECK_THAT(tight.text, Contains("--max-memory 1KiB: tensors are predicted to take") &&
                             Contains("lower --chunk-frames"));
  CHECK_FALSE(std::filesystem::exists(bench.dir / "out.mp4"));
  const Answer roomy = bench.generate(edge + " --max-memory 1GiB");
  CHECK(roomy.code == 0);
  CHECK_THAT(roomy.text, Contains("note: tensors are predicted to take"));
  CHECK_THAT(bench.generate(edge + " --max-memory much").text, Contains("expected a size"));
}

TEST_CASE("--max-memory takes block offload before it refuses", "[generate][offload]") {
  if (no_media()) return;
  const Bench bench;
  const std::string edge = "--num-frames 5 --control edge=" + bench.path("rgb.mp4");
  REQUIRE(bench.generate(edge).code == 0);
  const Tensor plain = bench.latents();
  REQUIRE(bench.generate(edge + " --offload blocks").code == 0);
  CHECK(bench.latents().equal(plain));

  modules::WorldPipeline pipeline = modules::load_world_pipeline(bench.dir / "pipeline");
  modules::WorldRequest request{.height = 16, .width = 32, .num_frames = 5, .steps = 2};
  request.chunk_frames = 9;
  request.controls["edge"] = {.frames = modules::frames_of(torch::zeros({1, 3, 22, 16, 32})),
                              .length = 22};
  const int64_t needed = predict_peak(pipeline, request).total();
  const std::string tight = edge + " --max-memory " + std::to_string(needed - 1);
  const Answer answer = bench.generate(tight);
  INFO(answer.text);
  REQUIRE(answer.code == 0);
  CHECK_THAT(answer.text, Contains("note: tensors are predicted to take") &&
                              Contains(" with block offload (weights"));
  CHECK(bench.latents().equal(plain));
  const Answer refused = bench.generate(tight + " --offload none");
  CHECK(refused.code == 1);
  CHECK_THAT(refused.text, Contains(" with VAE tiling (weights"));
  CHECK_THAT(bench.generate(edge + " --offload some").text, Contains("auto, none or blocks"));
  // Small frames are no larger than a tile.
  REQUIRE(bench.generate(edge + " --vae-tiling").code == 0);
  CHECK(bench.latents().equal(plain));
  CHECK(modules::read_json(bench.dir / "out.json")["vae_tiling"] == true);
}
