// For the proofs under test/reference: what tokenizers, chat templates and processors make of
// texts, pictures and videos. Reads one JSON value a line, writes one a line.
//
//   text_worker encode DIR     "text"                    -> [ids]     (with prefix and suffix)
//   text_worker decode DIR     [ids]                     -> "text"
//   text_worker stream DIR     [ids]                     -> "text", decoded token by token
//   text_worker chat TYPE      conversation with options -> "text"    (TYPE: a model_type)
//   text_worker sample DIR     [frames, fps]             -> [frame numbers]
//   text_worker process DIR    {"text", "inputs", "outputs", "videos": [[fps, total], ...]} ->
//   null;
//                              inputs: safetensors with image.N [H, W, 3], video.N [n, H, W, 3],
//                              whose frames are sampled; outputs: encode_text's tensors

#include <iostream>

#include "modules/hub/json_file.h"
#include "modules/hub/safetensors.h"
#include "modules/text/tokenizer.h"
#include "modules/vlm/processor.h"

namespace {

using namespace cosmos;
using namespace cosmos::modules;

Json chat(const std::string& type, const Json& line) {
  return render_chat(read_conversation(line, "line"), chat_format(type),
                     {.generation_prompt = line.value("add_generation_prompt", false),
                      .vision_ids = line.value("add_vision_id", false),
                      .thinking = line.value("enable_thinking", true)});
}

Json process(const std::string& dir, const Json& line) {
  const VlmProcessor processor = VlmProcessor::load(dir);
  const TensorMap tensors = load_safetensors(line["inputs"].get<std::string>());
  std::vector<Tensor> images;
  for (int i = 0; tensors.count("image." + std::to_string(i)); ++i)
    images.push_back(tensors.at("image." + std::to_string(i)));
  std::vector<VideoFrames> videos;
  for (const Json& item : line["videos"]) {
    const Tensor frames = tensors.at("video." + std::to_string(videos.size()));
    VideoFrames video{.fps = item[0], .total_frames = frames.size(0)};
    video.indices = sample_frames(frames.size(0), video.fps, processor.config);
    video.frames = frames.index_select(0, torch::tensor(video.indices));
    videos.push_back(video);
  }
  save_safetensors(line["outputs"].get<std::string>(),
                   processor.encode_text(line["text"], images, videos));
  return nullptr;
}

Json tokens(const std::string& command, const std::shared_ptr<const TextTokenizer>& tokenizer,
            const Json& line) {
  if (command == "encode") return tokenizer->encode(line.get<std::string>());
  const auto ids = line.get<std::vector<int64_t>>();
  if (command == "decode") return tokenizer->decode(ids);
  TokenStream stream(tokenizer, /*skip_special=*/false);
  std::string text;
  for (const int64_t id : ids) text += stream.push(id);
  return text + stream.finish();
}

void run(const std::string& command, const std::string& what) {
  const bool text = command == "encode" || command == "decode" || command == "stream";
  const auto tokenizer = text ? TextTokenizer::load(what) : nullptr;
  for (std::string line; std::getline(std::cin, line);) {
    const Json json = Json::parse(line);
    Json answer;
    if (command == "chat") {
      answer = chat(what, json);
    } else if (command == "sample") {
      answer = sample_frames(json[0], json[1], ProcessorConfig::load(what));
    } else if (command == "process") {
      answer = process(what, json);
    } else {
      answer = tokens(command, tokenizer, json);
    }
    std::cout << answer.dump() << "\n";
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    require(argc == 3, "expected: text_worker encode|decode|stream|chat|sample|process DIR");
    run(argv[1], argv[2]);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "text_worker: " << error.what() << "\n";
    return 1;
  }
}
