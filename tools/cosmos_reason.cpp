// cosmos-reason: asks a vision-language model about images and videos, describes them, says how
// likely given answers are, and counts right answers to multiple-choice questions.

#include <algorithm>
#include <cxxopts.hpp>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "modules/hub/json_file.h"
#include "modules/hub/registry.h"
#include "modules/lora/files.h"
#include "modules/registry.h"
#include "modules/vlm/generate.h"
#include "tools/device_option.h"
#include "tools/program.h"
#include "trainer/data/chat_encoder.h"
#include "trainer/recipes/choice.h"
#include "trainer/recipes/packed_conversations.h"

namespace {

using namespace cosmos;
using namespace cosmos::modules;
using trainer::ChatEncoder;
namespace fs = std::filesystem;

constexpr const char* kHelp = R"(
  chat      answers --prompt with --image and --video, or every line of --input; without either it
            talks: one question a line on stdin
  caption   describes every --image and --video, or every line of --input
  score     log-probability of the last answer of every line of --input
  eval      answers the multiple-choice questions of --input, --samples times each, and counts

Lines of --input are conversations (OpenAI messages, or LLaVA's `conversations`), for caption also
{"image": F} or {"video": F}; media's paths start from the file's folder. Lines of --output are those
of --input with `answer` and `finish_reason` ("stop" or "length"), or `log_prob` (of the whole
answer), `tokens` and `log_prob_per_token`. A line that cannot be used gets `error`, and the exit
code is 3. Without --output lines go to stdout.

Lines for eval hold `question`, `options` (a list), `answer` (a letter) and `image`, `images`,
`video`, `videos`; or a conversation that ends with the question, and `answer`; `category` is
counted apart. Lines of --output get `answers`, `letters` and `correct` (how many were right). The
last line on stdout, also written to --summary: questions, accuracy, pass@1, pass@2, pass@4, ...

Exit codes: 0 done, 1 bad input (one line on stderr), 2 wrong usage, 3 some lines have an error.)";

constexpr const char* kCaption = "Describe this in detail.";
constexpr const char* kInstruction = "Answer with the letter of the right option.";

struct Arguments {
  std::string command, model, adapter, prompt, system, input, output, dtype, caption;
  std::string instruction, summary;
  std::vector<std::string> images, videos;
  int64_t batch = 8;
  torch::Device device = torch::kCPU;
  Json processor = Json::object();
  GenerateOptions generate;
};

/// What a command works with.
struct Session {
  std::shared_ptr<LanguageModel> model;
  std::shared_ptr<const ChatEncoder> encoder;
  torch::Device device = torch::kCPU;
};

Session open_session(Arguments& arguments) {
  Session session;
  const LoadOptions options{
      .dtype = arguments.dtype == "bfloat16" ? torch::kBFloat16 : torch::kFloat32, .mapped = true};
  session.model = std::dynamic_pointer_cast<LanguageModel>(load_model(arguments.model, options));
  require(session.model != nullptr, arguments.model, ": is not a language model's folder");
  if (!arguments.adapter.empty()) load_adapter(*session.model, arguments.adapter);
  session.device = arguments.device;
  session.model->to(session.device);
  session.model->eval();
  session.encoder = ChatEncoder::load(arguments.model, arguments.processor, "--processor");
  arguments.generate.stop_tokens = session.encoder->stop_tokens();
  return session;
}

/// One line of the work: what was given, and what becomes of it.
struct Line {
  Json json;
  Conversation conversation;
  std::string error;
  trainer::ChoiceQuestion choice = {};  ///< of eval; its conversation is the line's
};

/// Media's paths made whole, from `base` on.
void resolve(Conversation& conversation, const fs::path& base) {
  for (auto& message : conversation.messages)
    for (auto& part : message.parts) {
      if (part.kind == MessagePart::Kind::kText) continue;
      if (fs::path(part.value).is_relative()) part.value = (base / part.value).string();
      std::error_code ignored;
      require(fs::is_regular_file(part.value, ignored), part.value, ": no such file");
    }
}

Message user_message(const std::vector<std::string>& images, const std::vector<std::string>& videos,
                     const std::string& text) {
  Message message{.role = "user", .parts = {}};
  for (const auto& path : images)
    message.parts.push_back({.kind = MessagePart::Kind::kImage, .value = path});
  for (const auto& path : videos)
    message.parts.push_back({.kind = MessagePart::Kind::kVideo, .value = path});
  message.parts.push_back({.kind = MessagePart::Kind::kText, .value = text});
  return message;
}

/// Begins with the system message, if one is set.
Conversation begin(const Arguments& arguments) {
  Conversation conversation;
  if (!arguments.system.empty())
    conversation.messages.push_back(
        {.role = "system",
         .parts = {{.kind = MessagePart::Kind::kText, .value = arguments.system}}});
  return conversation;
}

Conversation single(const Arguments& arguments, const std::vector<std::string>& images,
                    const std::vector<std::string>& videos, const std::string& text) {
  Conversation conversation = begin(arguments);
  conversation.messages.push_back(user_message(images, videos, text));
  return conversation;
}

Conversation read_line(const Json& json, const Arguments& arguments, const std::string& where) {
  const bool media_alone = arguments.command == "caption" && json.is_object() &&
                           !json.contains("messages") && !json.contains("conversations");
  if (!media_alone) return read_conversation(json, where);
  std::vector<std::string> images, videos;
  const auto take = [&](const char* key, std::vector<std::string>& paths) {
    if (json.contains(key)) read_scalar(json[key], paths.emplace_back(), where + "." + key);
  };
  take("image", images);
  take("video", videos);
  require(!images.empty() || !videos.empty(), where, ": expected image or video, or messages");
  return single(arguments, images, videos, arguments.caption);
}

/// Throws Error unless its last message is what the command needs.
void check_end(const Conversation& conversation, const std::string& command,
               const std::string& where) {
  const std::string last = conversation.messages.back().role;
  if (command == "score") return check_conversation(conversation, where);
  require(last == "user" || last == "tool", where, ": expected a question at the end, got \"", last,
          "\"");
}

std::vector<Line> read_lines(const Arguments& arguments) {
  std::ifstream in(arguments.input);
  require(in.good(), arguments.input, ": cannot be read");
  std::vector<Line> lines;
  std::string text;
  for (int64_t number = 1; std::getline(in, text); ++number) {
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = arguments.input + " line " + std::to_string(number);
    Line line{.json = Json::parse(text, nullptr, /*allow_exceptions=*/false)};
    try {
      require(!line.json.is_discarded(), where, ": is not JSON");
      if (arguments.command == "eval") {
        line.choice = trainer::read_choice_question(line.json, where, arguments.instruction);
        line.conversation = line.choice.conversation;
      } else {
        line.conversation = read_line(line.json, arguments, where);
      }
      check_end(line.conversation, arguments.command, where);
      resolve(line.conversation, fs::path(arguments.input).parent_path());
    } catch (const Error& error) {
      line.error = error.what();
    }
    if (!line.json.is_object()) line.json = Json::object();
    lines.push_back(std::move(line));
  }
  require(!lines.empty(), arguments.input, ": holds no line");
  return lines;
}

/// The sequences of lines that can be encoded; the others get their error.
template <typename Encode>
std::vector<Line*> encode_lines(std::vector<Line*> lines, std::vector<Sequence>& sequences,
                                torch::Device device, Encode encode) {
  std::vector<Line*> good;
  for (Line* line : lines) {
    if (!line->error.empty()) continue;
    try {
      sequences.push_back(to_device(encode(line->conversation), device));
      good.push_back(line);
    } catch (const Error& error) {
      line->error = error.what();
    }
  }
  return good;
}

/// options.answers answers to each line of `lines`, of which those that cannot be asked leave it.
std::vector<Answer> write_answers(const Session& session, const GenerateOptions& options,
                                  std::vector<Line*>& lines) {
  std::vector<Sequence> prompts;
  lines = encode_lines(std::move(lines), prompts, session.device,
                       [&](const Conversation& c) { return session.encoder->prompt(c); });
  return prompts.empty() ? std::vector<Answer>{} : generate(*session.model, prompts, options);
}

void answer_lines(const Session& session, const GenerateOptions& options,
                  std::vector<Line*> lines) {
  const std::vector<Answer> answers = write_answers(session, options, lines);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    lines[i]->json["answer"] = session.encoder->decode(answers[i].tokens);
    lines[i]->json["finish_reason"] = answers[i].stopped ? "stop" : "length";
  }
}

void choose_lines(const Session& session, const GenerateOptions& options, std::vector<Line*> lines,
                  trainer::ChoiceTally& tally) {
  const std::vector<Answer> answers = write_answers(session, options, lines);
  const auto samples = static_cast<std::size_t>(options.answers);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const trainer::ChoiceQuestion& question = lines[i]->choice;
    Json& json = lines[i]->json;
    std::vector<std::string> texts, letters;
    for (std::size_t s = 0; s < samples; ++s) {
      texts.push_back(session.encoder->decode(answers[i * samples + s].tokens));
      letters.push_back(trainer::chosen_letter(texts.back(), question.options));
    }
    json["correct"] = std::count(letters.begin(), letters.end(), question.truth);
    json["answers"] = texts;
    json["letters"] = letters;
    const Json category = json.value("category", Json(""));
    tally.add(letters, question.truth,
              category.is_string() ? category.get<std::string>() : category.dump());
  }
}

void score_lines(const Session& session, std::vector<Line*> lines) {
  std::vector<Sequence> sequences;
  std::vector<int64_t> begins;
  lines = encode_lines(
      std::move(lines), sequences, session.device, [&](const Conversation& conversation) {
        EncodedConversation encoded = session.encoder->encode(conversation);
        begins.push_back(trainer::last_answer_begin(encoded.labels));
        // What follows the answer's end (a newline) is no part of it.
        const Tensor learned = encoded.labels.ne(kIgnoreToken).nonzero();
        encoded.sequence.input_ids =
            encoded.sequence.input_ids.narrow(0, 0, learned[-1].item<int64_t>() + 1);
        return encoded.sequence;
      });
  if (sequences.empty()) return;
  const torch::NoGradGuard no_grad;
  const Tensors scores = answer_log_probs(*session.model, sequences, begins);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const auto tokens = scores[i].numel();
    const double sum = scores[i].to(torch::kFloat64).sum().item<double>();
    lines[i]->json["log_prob"] = sum;
    lines[i]->json["tokens"] = tokens;
    lines[i]->json["log_prob_per_token"] = sum / static_cast<double>(tokens);
  }
}

void write_summary(const trainer::ChoiceTally& tally, int64_t errors, const std::string& file) {
  Json summary = tally.summary();
  summary["errors"] = errors;
  std::cout << summary.dump() << '\n';
  if (!file.empty()) write_json(file, summary);
}

/// Runs the lines in batches and writes them. Returns how many have an error.
int64_t run_lines(const Session& session, const Arguments& arguments, std::vector<Line> lines) {
  std::ofstream file;
  if (!arguments.output.empty()) {
    file.open(arguments.output);
    require(file.good(), arguments.output, ": cannot be written");
  }
  std::ostream& out = arguments.output.empty() ? std::cout : file;
  int64_t errors = 0;
  trainer::ChoiceTally tally;
  const auto batch = static_cast<std::size_t>(arguments.batch);
  for (std::size_t begin = 0; begin < lines.size(); begin += batch) {
    std::vector<Line*> part;
    for (std::size_t i = begin; i < std::min(begin + batch, lines.size()); ++i)
      part.push_back(&lines[i]);
    GenerateOptions options = arguments.generate;
    options.first_index = begin * static_cast<std::size_t>(options.answers);
    if (arguments.command == "score") {
      score_lines(session, part);
    } else if (arguments.command == "eval") {
      choose_lines(session, options, part, tally);
    } else {
      answer_lines(session, options, part);
    }
    for (Line* line : part) {
      if (!line->error.empty()) line->json["error"] = line->error;
      errors += line->error.empty() ? 0 : 1;
      out << line->json.dump() << '\n';
    }
    out.flush();
  }
  require(out.good(), arguments.output, ": cannot be written");
  if (arguments.command == "eval") write_summary(tally, errors, arguments.summary);
  return errors;
}

/// Answers the conversation on stdout as it is written, and appends the answer to it.
void stream_answer(const Session& session, const Arguments& arguments, Conversation& conversation) {
  TokenStream text(session.encoder->tokenizer());
  GenerateOptions options = arguments.generate;
  options.on_token = [&](int64_t, int64_t token) {
    std::cout << text.push(token) << std::flush;
    return true;
  };
  const auto answers = generate(
      *session.model, {to_device(session.encoder->prompt(conversation), session.device)}, options);
  std::cout << text.finish() << '\n';
  conversation.messages.push_back(
      {.role = "assistant",
       .parts = {{.kind = MessagePart::Kind::kText,
                  .value = session.encoder->decode(answers[0].tokens)}}});
}

/// Questions from stdin, each answered with all that was said before.
void talk(const Session& session, const Arguments& arguments) {
  Conversation conversation = begin(arguments);
  std::vector<std::string> images = arguments.images, videos = arguments.videos;
  for (std::string line; std::cout << "> " << std::flush, std::getline(std::cin, line);) {
    if (line.empty()) continue;
    conversation.messages.push_back(user_message(images, videos, line));
    images.clear();
    videos.clear();
    stream_answer(session, arguments, conversation);
  }
  std::cout << '\n';
}

/// A line for each of --image and --video.
std::vector<Line> media_lines(const Arguments& arguments) {
  std::vector<Line> lines;
  for (const auto& path : arguments.images)
    lines.push_back({.json = {{"image", path}},
                     .conversation = single(arguments, {path}, {}, arguments.caption),
                     .error = ""});
  for (const auto& path : arguments.videos)
    lines.push_back({.json = {{"video", path}},
                     .conversation = single(arguments, {}, {path}, arguments.caption),
                     .error = ""});
  return lines;
}

int execute(Arguments& arguments) {
  std::vector<Line> lines;
  if (!arguments.input.empty()) lines = read_lines(arguments);
  const Session session = open_session(arguments);
  if (!lines.empty()) return run_lines(session, arguments, std::move(lines)) > 0 ? 3 : 0;
  if (arguments.command == "caption")
    return run_lines(session, arguments, media_lines(arguments)) > 0 ? 3 : 0;
  if (arguments.prompt.empty()) return talk(session, arguments), 0;
  Conversation conversation =
      single(arguments, arguments.images, arguments.videos, arguments.prompt);
  stream_answer(session, arguments, conversation);
  return 0;
}

cxxopts::Options make_options() {
  cxxopts::Options options("cosmos-reason", "Answers about images and videos.");
  options.custom_help("chat|caption|score|eval --model DIR [options]");
  const auto text = [](const char* otherwise) {
    return cxxopts::value<std::string>()->default_value(otherwise);
  };
  const auto list = [] { return cxxopts::value<std::vector<std::string>>(); };
  auto add = options.add_options();
  add("command", "chat, caption, score or eval", text(""));
  add("model", "folder of a Qwen-VL or Qwen language model with its tokenizer", text(""), "DIR");
  add("adapter", "PEFT folder on top of the model", text(""), "DIR");
  add("prompt", "question", text(""), "TEXT");
  add("system", "system message", text(""), "TEXT");
  add("image", "picture, may be repeated", list(), "FILE");
  add("video", "video, may be repeated", list(), "FILE");
  add("input", "JSONL of conversations", text(""), "FILE");
  add("output", "JSONL to write", text(""), "FILE");
  add("caption-prompt", "question of caption", text(kCaption), "TEXT");
  add("instruction", "eval: follows the options", text(kInstruction), "TEXT");
  add("samples", "eval: answers to each question", cxxopts::value<int64_t>()->default_value("1"),
      "N");
  add("summary", "eval: JSON file for what is counted", text(""), "FILE");
  add("max-new-tokens", "longest answer", cxxopts::value<int64_t>()->default_value("512"), "N");
  add("temperature", "0: the likeliest token", cxxopts::value<double>()->default_value("0"), "T");
  add("top-k", "0: all tokens", cxxopts::value<int64_t>()->default_value("0"), "K");
  add("top-p", "probability that drawn tokens reach", cxxopts::value<double>()->default_value("1"),
      "P");
  add("repetition-penalty", "above 1: less repetition",
      cxxopts::value<double>()->default_value("1"), "X");
  add("seed", "of drawn tokens", cxxopts::value<uint64_t>()->default_value("0"), "N");
  add("batch", "lines that go through the model together",
      cxxopts::value<int64_t>()->default_value("8"), "N");
  add("processor", "changes to image and video settings: {\"video\": {\"fps\": 4}}", text("{}"),
      "JSON");
  add("dtype", "float32 or bfloat16", text("float32"), "TYPE");
  tools::add_device_option(options);
  add("h,help", "this text");
  options.parse_positional({"command"});
  options.positional_help("");
  return options;
}

/// Throws cxxopts' exceptions and Error on wrong usage.
Arguments parse(const cxxopts::ParseResult& parsed) {
  const auto text = [&](const char* name) { return parsed[name].as<std::string>(); };
  const auto list = [&](const char* name) {
    return parsed.count(name) ? parsed[name].as<std::vector<std::string>>()
                              : std::vector<std::string>{};
  };
  require(parsed.unmatched().empty(), "unexpected argument ",
          parsed.unmatched().empty() ? "" : parsed.unmatched()[0]);
  Arguments arguments{.command = text("command"),
                      .model = text("model"),
                      .adapter = text("adapter"),
                      .prompt = text("prompt"),
                      .system = text("system"),
                      .input = text("input"),
                      .output = text("output"),
                      .dtype = text("dtype"),
                      .caption = text("caption-prompt"),
                      .instruction = text("instruction"),
                      .summary = text("summary"),
                      .images = list("image"),
                      .videos = list("video"),
                      .batch = parsed["batch"].as<int64_t>()};
  const std::string& command = arguments.command;
  require(command == "chat" || command == "caption" || command == "score" || command == "eval",
          "expected chat, caption, score or eval, got ", command.empty() ? "nothing" : command);
  require(!arguments.model.empty(), "--model is missing");
  require(arguments.dtype == "float32" || arguments.dtype == "bfloat16",
          "--dtype: expected float32 or bfloat16, got ", arguments.dtype);
  arguments.device = tools::device_of(parsed);
  require(arguments.batch > 0, "--batch: expected a positive number, got ", arguments.batch);
  const bool needs_input = command == "score" || command == "eval";
  require(!needs_input || !arguments.input.empty(), command, " needs --input");
  arguments.generate.answers = parsed["samples"].as<int64_t>();
  require(arguments.generate.answers > 0, "--samples: expected a positive number");
  require(command == "eval" || (arguments.generate.answers == 1 && arguments.summary.empty()),
          "--samples and --summary go with eval");
  require(command != "caption" || !arguments.input.empty() || !arguments.images.empty() ||
              !arguments.videos.empty(),
          "caption needs --input, --image or --video");
  arguments.processor = Json::parse(text("processor"), nullptr, /*allow_exceptions=*/false);
  require(arguments.processor.is_object(), "--processor: expected a JSON object, got ",
          text("processor"));
  SamplingConfig& sampling = arguments.generate.sampling;
  const double temperature = parsed["temperature"].as<double>();
  sampling = {.do_sample = temperature != 0,
              .temperature = temperature != 0 ? temperature : 1,
              .top_k = parsed["top-k"].as<int64_t>(),
              .top_p = parsed["top-p"].as<double>(),
              .repetition_penalty = parsed["repetition-penalty"].as<double>()};
  sampling.check("options");
  arguments.generate.max_new_tokens = parsed["max-new-tokens"].as<int64_t>();
  require(arguments.generate.max_new_tokens > 0, "--max-new-tokens: expected a positive number");
  require(arguments.generate.answers == 1 || sampling.do_sample,
          "--samples above 1 needs a --temperature above 0: they would all be the same");
  arguments.generate.seed = parsed["seed"].as<uint64_t>();
  return arguments;
}

int run(int argc, char** argv) {
  cxxopts::Options options = make_options();
  const auto parsed = options.parse(argc, argv);
  if (parsed.count("help")) return std::cout << options.help() << kHelp << '\n', 0;
  Arguments arguments = tools::parse_usage([&] { return parse(parsed); });
  register_builtin_models();
  return execute(arguments);
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("cosmos-reason", argc, argv, run);
}
