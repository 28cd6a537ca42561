// cosmos-reason from outside, and cosmos-train's recipes on what it reads.

#include <catch2/catch.hpp>

#include "modules/hub/safetensors.h"
#include "test/support/program.h"
#include "test/support/temp_folder.h"
#include "test/tools/tiny_reason.h"
#include "trainer/data/chat_encoder.h"

using namespace cosmos;
using namespace cosmos::test;
using Catch::Matchers::Contains;

namespace {

Answer reason(const std::string& arguments, const std::string& before = "") {
  return run_program("cosmos-reason", arguments, before);
}

}  // namespace

TEST_CASE("cosmos-reason answers and scores lines, and says which it cannot use",
          "[cosmos-reason]") {
  const TempFolder dir;
  const std::string model = " --model " + write_tiny_reason(dir.path()).string();
  const std::string in = dir / "in.jsonl", out = dir / "out.jsonl";
  const std::string files = " --input " + in + " --output " + out;
  write_text(in, {asked("what is it"),
                  {{"messages", Json::array({{{"role", "user"}, {"content", "hello"}}})}}});
  REQUIRE(reason("chat" + model + files + " --max-new-tokens 5").text == "");
  auto lines = read_text(out);
  REQUIRE(lines.size() == 2);
  for (const Json& line : lines) {
    CHECK(line["answer"].is_string());
    CHECK((line["finish_reason"] == "stop" || line["finish_reason"] == "length"));
  }
  CHECK(lines[0]["image"] == "a.png");
  // Alone or beside others, with the same seed: the same draws.
  const std::string drawn = " --max-new-tokens 6 --temperature 1.5 --seed 4";
  reason("chat" + model + files + drawn);
  const Json together = read_text(out);
  reason("chat" + model + files + drawn + " --batch 1");
  CHECK(Json(read_text(out)) == together);

  write_text(in, {asked("what is it", "a robot"),
                  asked("and this", "a robot arm"),
                  asked("no answer"),
                  {{"image", "gone.png"}, {"conversations", asked("x", "y")["conversations"]}}});
  CHECK(reason("score" + model + files).code == 3);
  lines = read_text(out);
  REQUIRE(lines.size() == 4);
  CHECK(lines[0]["log_prob"] < 0);
  CHECK(lines[0]["tokens"] > 1);
  CHECK(lines[0]["log_prob_per_token"].get<double>() ==
        Approx(lines[0]["log_prob"].get<double>() / lines[0]["tokens"].get<double>()));
  CHECK_THAT(lines[2]["error"].get<std::string>(), Contains("line 3") && Contains("at the end"));
  CHECK_THAT(lines[3]["error"].get<std::string>(), Contains("gone.png: no such file"));
}

TEST_CASE("cosmos-reason describes media and talks", "[cosmos-reason]") {
  const TempFolder dir;
  const std::string model = " --model " + write_tiny_reason(dir.path()).string();
  const std::string image = (dir / "a.png").string();
  const Answer caption = reason("caption" + model + " --image " + image + " --max-new-tokens 3");
  CHECK(caption.code == 0);
  CHECK(Json::parse(caption.text)["image"] == image);
  const Answer chat =
      reason("chat" + model + " --image " + image + " --prompt hello --max-new-tokens 3");
  CHECK(chat.code == 0);
  const Answer talk = run_program(
      "cosmos-reason", "chat" + model + " --max-new-tokens 2",
      "printf 'hello\\nwhat\\n' > " + (dir / "q").string() + "; exec < " + (dir / "q").string());
  CHECK(talk.code == 0);
  CHECK(std::count(talk.text.begin(), talk.text.end(), '>') >= 3);
}

TEST_CASE("cosmos-reason asks multiple-choice questions and counts", "[cosmos-reason]") {
  const TempFolder dir;
  const std::string model = " --model " + write_tiny_reason(dir.path()).string();
  const std::string in = dir / "in.jsonl", out = dir / "out.jsonl", sums = dir / "sums.json";
  const Json question = {{"image", "a.png"},
                         {"question", "which"},
                         {"options", {"a robot", "a car"}},
                         {"answer", "B"}};
  Json marked = asked("go\n(A) left (B) right");
  marked["answer"] = "A";
  marked["category"] = "motion";
  Json wrong = question;
  wrong["answer"] = "C";
  write_text(in, {question, marked, wrong});
  const Answer done =
      reason("eval" + model + " --input " + in + " --output " + out + " --summary " + sums +
             " --samples 4 --temperature 1" + " --max-new-tokens 3");
  CHECK(done.code == 3);
  const auto lines = read_text(out);
  REQUIRE(lines.size() == 3);
  for (const int i : {0, 1}) {
    CHECK(lines[i]["answers"].size() == 4);
    CHECK(lines[i]["letters"].size() == 4);
    CHECK(lines[i]["correct"].is_number_integer());
  }
  CHECK_THAT(lines[2]["error"].get<std::string>(), Contains("line 3") && Contains("\"C\""));
  const Json summary = modules::read_json(sums);
  CHECK(Json::parse(done.text) == summary);
  CHECK(summary["questions"] == 2);
  CHECK(summary["samples"] == 4);
  CHECK(summary["errors"] == 1);
  CHECK(summary["pass@4"] >= summary["pass@2"]);
  CHECK(summary["by_category"]["motion"]["questions"] == 1);
  CHECK_THAT(reason("eval" + model + " --input " + in + " --samples 4").text,
             Contains("--temperature above 0"));
}

TEST_CASE("a checkpoint's model folder stands alone, and a trained part goes into its base",
          "[cosmos-reason]") {
  const TempFolder dir;
  const auto folder = write_tiny_reason(dir.path());
  write_text(dir / "train.jsonl", {asked("what is it", "a robot")});
  const auto train = [&](const std::string& run, const Json& freeze) {
    const Json config = {{"recipe",
                          {{"type", "sft"},
                           {"model", {{"path", folder.string()}}},
                           {"freeze", freeze},
                           {"data", {{"files", {(dir / "train.jsonl").string()}}}}}},
                         {"trainer", {{"steps", 2}, {"optimizer", {{"lr", 1e-2}}}}},
                         {"run", {{"dir", (dir / run).string()}}}};
    modules::write_json(dir / (run + ".json"), config);
    const Answer answer = run_program("cosmos-train", (dir / (run + ".json")).string());
    INFO(answer.text);
    CHECK(answer.code == 0);
    return dir / run / "checkpoints/step-00000002";
  };
  const auto log_prob = [&](const std::filesystem::path& model) {
    const Answer answer =
        reason("score --model " + model.string() + " --input " + (dir / "train.jsonl").string());
    INFO(answer.text);
    REQUIRE(answer.code == 0);
    return Json::parse(answer.text)["log_prob"].get<double>();
  };
  const double before = log_prob(folder);
  const auto whole = train("whole", Json::array());
  CHECK(log_prob(whole / "model") > before);
  for (const char* name : {"tokenizer.json", "preprocessor_config.json"})
    CHECK(std::filesystem::exists(whole / "model" / name));

  const auto part = train("part", {"vision", "merger"});
  const std::string merge = "merge --model " + folder.string() + " --base-model b --adapter ";
  REQUIRE(run_program("cosmos-convert",
                      merge + part.string() + " --output " + (dir / "merged").string())
              .code == 0);
  CHECK(log_prob(dir / "merged") > before);
  const auto old = modules::load_safetensors(folder / "model.safetensors");
  for (const auto& [key, tensor] : modules::load_safetensors(dir / "merged/model.safetensors"))
    CHECK(tensor.equal(old.at(key)) == (key.rfind("model.visual.", 0) == 0));
}

TEST_CASE("an export in FP8 rounds products, a scale a row, and nothing else", "[cosmos-reason]") {
  const TempFolder dir;
  const auto folder = write_tiny_reason(dir.path());
  const Answer done = run_program("cosmos-convert", "export --fp8 --model " + folder.string() +
                                                        " --output " + (dir / "out").string());
  INFO(done.text);
  REQUIRE(done.code == 0);
  const auto plain = modules::load_safetensors(folder / "model.safetensors");
  int rounded = 0;
  for (const auto& [key, tensor] : modules::load_safetensors(dir / "out/model.safetensors")) {
    if (plain.count(key) == 0) continue;  // a scale
    if (tensor.scalar_type() != torch::kFloat8_e4m3fn) {
      CHECK(tensor.equal(plain.at(key)));
      continue;
    }
    ++rounded;
    CHECK(key.find("language_model.layers.") != std::string::npos);
    const Tensor scale =
        modules::load_safetensors(dir / "out/model.safetensors").at(key + "_scale");
    CHECK(scale.sizes() == torch::IntArrayRef({tensor.size(0), 1}));
    const Tensor error = (tensor.to(torch::kFloat32) * scale - plain.at(key)).abs();
    // Half a step of 3 bits of mantissa, of a row's largest.
    CHECK((error <= plain.at(key).abs().amax(1, true) / 28).all().item<bool>());
  }
  CHECK(rounded == 14);  // seven in each of two layers
  const Json config = modules::read_json(dir / "out/config.json")["quantization_config"];
  CHECK(config["quant_method"] == "compressed-tensors");
  CHECK(config["ignore"] == Json({"re:.*lm_head.*", "re:.*visual.*"}));
}

TEST_CASE("a tool's turn goes on where an answer ended", "[cosmos-reason]") {
  const TempFolder dir;
  const auto encoder = trainer::ChatEncoder::load(write_tiny_reason(dir.path()));
  const auto message = [](const char* role, const char* text) {
    return modules::Message{.role = role,
                            .parts = {{.kind = modules::MessagePart::Kind::kText, .value = text}}};
  };
  const std::string call = "<tool_call>\n{\"name\": \"go\", \"arguments\": {}}\n</tool_call>";
  modules::Conversation all{.messages = {message("user", "go"), message("assistant", call.c_str()),
                                         message("tool", "left"), message("tool", "12")}};
  const modules::Conversation question{.messages = {message("user", "go")}};
  const auto tokens = [](const std::vector<int64_t>& ids) {
    return torch::tensor(ids, torch::kInt64);
  };
  CHECK(torch::cat({encoder->prompt(question).input_ids,
                    tokens(encoder->tokenizer()->encode(call + "<|im_end|>")),
                    tokens(encoder->tool_turn({"left", "12"}))})
            .equal(encoder->prompt(all).input_ids));
}

TEST_CASE("cosmos-reason answers wrong usage in one line", "[cosmos-reason]") {
  const TempFolder dir;
  CHECK_THAT(reason("").text, Contains("expected chat, caption, score or eval"));
  CHECK(reason("chat").code == 2);
  CHECK(reason("score --model x").code == 2);
  CHECK_THAT(reason("chat --model x --prompt y --temperature -1").text, Contains("temperature"));
  CHECK_THAT(reason("chat --model x --prompt y --processor [").text, Contains("--processor"));
  const Answer none = reason("chat --prompt y --model " + (dir / "none").string());
  CHECK(none.code == 1);
  CHECK_THAT(none.text, Contains("no such folder"));
}

TEST_CASE("cosmos-train fine-tunes a folder and cosmos-reason uses the adapter",
          "[cosmos-reason]") {
  const TempFolder dir;
  const std::string folder = write_tiny_reason(dir.path()).string();
  write_text(dir / "train.jsonl", {asked("what is it", "a robot"), asked("and this", "a car")});
  write_text(dir / "pairs.jsonl", {{{"prompt", "go"}, {"chosen", "left"}, {"rejected", "right"}}});
  Json questions = asked("what is it");
  questions["answer"] = "a";
  write_text(dir / "questions.jsonl", {questions});
  const auto train = [&](const std::string& type, const Json& more) {
    Json recipe = {
        {"type", type}, {"model", {{"path", folder}}}, {"lora", {{"rank", 4}, {"alpha", 16}}}};
    recipe.update(more);
    const Json config = {
        {"recipe", recipe},
        {"trainer", {{"steps", 30}, {"micro_batch_size", 2}, {"optimizer", {{"lr", 2e-2}}}}},
        {"run", {{"dir", (dir / type).string()}}}};
    modules::write_json(dir / (type + ".json"), config);
    return run_program("cosmos-train", (dir / (type + ".json")).string());
  };
  const std::string file = (dir / "train.jsonl").string();
  const Answer sft =
      train("sft", {{"data", {{"files", Json::array({file})}, {"pack_length", 4096}}}});
  INFO(sft.text);
  REQUIRE(sft.code == 0);
  const std::string score = "score --model " + folder + " --input " + file + " --output ";
  reason(score + (dir / "before").string());
  reason(score + (dir / "after").string() + " --adapter " +
         (dir / "sft/checkpoints/step-00000030/adapter").string());
  for (int i = 0; i < 2; ++i)
    CHECK(read_text(dir / "after")[i]["log_prob"] > read_text(dir / "before")[i]["log_prob"]);

  const Answer dpo =
      train("dpo", {{"data", {{"files", Json::array({(dir / "pairs.jsonl").string()})}}}});
  INFO(dpo.text);
  CHECK(dpo.code == 0);
  CHECK(read_text(dir / "dpo/metrics.jsonl").back()["accuracy"] == 1.0);
  const Answer grpo =
      train("grpo", {{"data", {{"files", Json::array({(dir / "questions.jsonl").string()})}}},
                     {"rewards", Json::array({{{"type", "regex"}, {"pattern", "a"}}})},
                     {"answers", 4},
                     {"max_new_tokens", 4}});
  INFO(grpo.text);
  CHECK(grpo.code == 0);
}

TEST_CASE("two ranks fine-tune a folder that neither holds whole as one does", "[cosmos-reason]") {
  const TempFolder dir;
  const std::string folder = write_tiny_reason(dir.path()).string();
  write_text(dir / "train.jsonl", {asked("what is it", "a robot"), asked("and this", "a car")});
  const auto losses = [&](int64_t ranks) {
    const std::string name = std::to_string(ranks);
    const Json data = {{"files", Json::array({(dir / "train.jsonl").string()})}};
    const Json config = {
        {"recipe", {{"type", "sft"}, {"model", {{"path", folder}}}, {"data", data}}},
        {"trainer",
         {{"steps", 4},
          {"precision", "fp64"},
          {"gradient_accumulation", 2 / ranks},
          {"optimizer", {{"lr", 1e-2}}}}},
        {"run", {{"dir", (dir / name).string()}}}};
    modules::write_json(dir / (name + ".json"), config);
    const Answer answer =
        run_program("cosmos-train", (dir / (name + ".json")).string() + " --nproc " + name);
    INFO(answer.text);
    REQUIRE(answer.code == 0);
    std::vector<double> found;
    for (const Json& row : read_text(dir / name / "metrics.jsonl")) found.push_back(row["loss"]);
    return found;
  };
  const std::vector<double> one = losses(1), two = losses(2);
  REQUIRE(one.size() == 4);
  REQUIRE(two.size() == 4);
  CHECK(one.back() < one.front());
  for (std::size_t i = 0; i < 4; ++i) CHECK(two[i] == Approx(one[i]).epsilon(1e-9));
}

TEST_CASE("the published recipes for Reason are checked", "[cosmos-reason]") {
  const std::string folder = COSMOS_SOURCE_DIR "/configs/reason/";
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".json") continue;
    const Answer answer = run_program("cosmos-train", entry.path().string() + " --check");
    INFO(answer.text);
    CHECK(answer.code == 0);
    ++files;
  }
  CHECK(files == 7);
}
