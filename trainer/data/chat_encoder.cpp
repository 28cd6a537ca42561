#include "trainer/data/chat_encoder.h"

#include "modules/hub/json_file.h"
#include "trainer/data/video_reader.h"

namespace cosmos::trainer {
namespace {

using modules::Conversation;
using modules::MessagePart;
using modules::ProcessorConfig;
using modules::Sequence;
using modules::VideoFrames;

using Kind = MessagePart::Kind;

std::vector<std::string> media_of(const Conversation& conversation, Kind kind) {
  std::vector<std::string> paths;
  for (const auto& message : conversation.messages)
    for (const auto& part : message.parts)
      if (part.kind == kind) paths.push_back(part.value);
  return paths;
}

// Which frames of a video the model sees.
struct Sampled {
  VideoInfo info;
  std::vector<int64_t> indices;
};

Sampled sample_video(const std::string& path, const ProcessorConfig& config) {
  Sampled sampled{.info = probe_video(path), .indices = {}};
  try {
    sampled.indices = modules::sample_frames(sampled.info.frames(), sampled.info.fps, config);
  } catch (const Error& error) {
    fail(path, ": ", error.what());
  }
  return sampled;
}

VideoFrames read_frames(const std::string& path, const ProcessorConfig& config) {
  const Sampled sampled = sample_video(path, config);
  std::vector<double> times;
  for (const int64_t index : sampled.indices)
    times.push_back(sampled.info.times[static_cast<std::size_t>(index)]);
  return {.frames = read_frames_at(path, sampled.info, times, {}),
          .fps = sampled.info.fps,
          .total_frames = sampled.info.frames(),
          .indices = sampled.indices};
}

Tensor taken(const TensorMap& tensors, const char* name) {
  const auto found = tensors.find(name);
  return found == tensors.end() ? Tensor() : found->second;
}

Sequence as_sequence(const TensorMap& inputs) {
  return {.input_ids = inputs.at("input_ids")[0],
          .pixel_values = taken(inputs, "pixel_values"),
          .image_grid_thw = taken(inputs, "image_grid_thw"),
          .pixel_values_videos = taken(inputs, "pixel_values_videos"),
          .video_grid_thw = taken(inputs, "video_grid_thw"),
          .second_per_grid_ts = taken(inputs, "second_per_grid_ts")};
}

void change(ProcessorConfig& config, const Json& changes, const std::string& where) {
  modules::refuse_unknown(changes, {"image", "video"}, where);
  const auto apply = [&](const char* key, auto& part) {
    if (!changes.contains(key)) return;
    modules::read_fields(changes[key], part, where + "." + key, modules::UnknownKeys::kRefuse);
    part.check(where + "." + key);
  };
  apply("image", config.image);
  apply("video", config.video);
}

std::vector<int64_t> read_stop_tokens(const std::filesystem::path& dir,
                                      const modules::TextTokenizer& tokenizer) {
  const std::filesystem::path file = dir / "generation_config.json";
  std::error_code ignored;
  if (std::filesystem::is_regular_file(file, ignored)) {
    const Json config = modules::read_json(file);
    const Json eos = config.value("eos_token_id", Json());
    std::vector<int64_t> tokens;
    const std::string where = file.string() + ": eos_token_id";
    if (eos.is_array()) modules::read_value(eos, tokens, where, modules::UnknownKeys::kKeep);
    if (eos.is_number()) modules::read_scalar(eos, tokens.emplace_back(), where);
    if (!tokens.empty()) return tokens;
  }
  const auto eos = tokenizer.special("eos_token");
  return eos ? std::vector<int64_t>{*eos} : std::vector<int64_t>{};
}

}  // namespace

std::shared_ptr<const ChatEncoder> ChatEncoder::load(const std::filesystem::path& dir,
                                                     const Json& changes,
                                                     const std::string& where) {
  const std::filesystem::path file = dir / "config.json";
  const Json config = modules::read_json(file);
  const std::string type = config.value("model_type", std::string());
  auto encoder = std::make_shared<ChatEncoder>();
  encoder->vision_ = type.find("_vl") != std::string::npos;
  if (encoder->vision_) {
    encoder->processor_ = modules::VlmProcessor::load(dir);
    change(encoder->processor_.config, changes, where);
  } else {
    require(changes.empty(), where, ": ", file.string(), " is no vision-language model");
    encoder->processor_.tokenizer = modules::TextTokenizer::load(dir);
    encoder->processor_.format = modules::chat_format(type);
  }
  encoder->stop_tokens_ = read_stop_tokens(dir, *encoder->processor_.tokenizer);
  return encoder;
}

Sequence ChatEncoder::sequence(const Conversation& conversation,
                               const modules::ChatOptions& options) const {
  std::vector<Tensor> images;
  std::vector<VideoFrames> videos;
  for (const auto& path : media_of(conversation, Kind::kImage)) images.push_back(read_image(path));
  for (const auto& path : media_of(conversation, Kind::kVideo))
    videos.push_back(read_frames(path, processor_.config));
  if (vision_) return as_sequence(processor_.encode(conversation, images, videos, options));
  const std::string text = render_chat(conversation, processor_.format, options);
  return {.input_ids = torch::tensor(processor_.tokenizer->encode(text), torch::kInt64)};
}

modules::EncodedConversation ChatEncoder::encode(const Conversation& conversation) const {
  modules::EncodedConversation encoded{.sequence = sequence(conversation, {}), .labels = {}};
  const Tensor& ids = encoded.sequence.input_ids;
  const std::vector<int64_t> tokens(ids.data_ptr<int64_t>(), ids.data_ptr<int64_t>() + ids.numel());
  const std::vector<bool> answers = modules::answer_mask(tokens, *processor_.tokenizer);
  encoded.labels = ids.clone();
  auto* label = encoded.labels.data_ptr<int64_t>();
  for (std::size_t i = 0; i < answers.size(); ++i)
    if (!answers[i]) label[i] = modules::kIgnoreToken;
  return encoded;
}

int64_t ChatEncoder::length(const Conversation& conversation) const {
  const std::string text = render_chat(conversation, processor_.format);
  if (!vision_) return static_cast<int64_t>(processor_.tokenizer->encode(text).size());
  const ProcessorConfig& config = processor_.config;
  std::vector<std::array<int64_t, 3>> images, videos;
  std::vector<std::vector<double>> seconds;
  for (const auto& path : media_of(conversation, Kind::kImage)) {
    const Tensor image = read_image(path);
    images.push_back(modules::image_grid(image.size(0), image.size(1), config.image));
  }
  for (const auto& path : media_of(conversation, Kind::kVideo)) {
    const Sampled sampled = sample_video(path, config);
    videos.push_back(modules::video_grid(static_cast<int64_t>(sampled.indices.size()),
                                         sampled.info.height, sampled.info.width, config));
    seconds.push_back(modules::group_seconds({.frames = {},
                                              .fps = sampled.info.fps,
                                              .total_frames = sampled.info.frames(),
                                              .indices = sampled.indices},
                                             config.video.temporal_patch_size));
  }
  const std::string expanded = processor_.expand(text, images, videos, seconds);
  return static_cast<int64_t>(processor_.tokenizer->encode(expanded).size());
}

Sequence ChatEncoder::prompt(const Conversation& conversation) const {
  return sequence(conversation, {.generation_prompt = true});
}

std::vector<int64_t> ChatEncoder::tool_turn(const std::vector<std::string>& results) const {
  const auto message = [](const char* role, const std::string& text) {
    return modules::Message{.role = role,
                            .parts = {{.kind = MessagePart::Kind::kText, .value = text}}};
  };
  Conversation conversation{.messages = {message("user", "q"), message("assistant", "a")}};
  for (const auto& result : results) conversation.messages.push_back(message("tool", result));
  const std::string text =
      render_chat(conversation, processor_.format, {.generation_prompt = true});
  const std::string end = "<|im_end|>";
  // Behind the end of the user's turn, then of the assistant's.
  const std::size_t answer = text.find(end, text.find("<|im_start|>assistant"));
  require(answer != std::string::npos, "this chat format has no tool turns");
  return processor_.tokenizer->encode(text.substr(answer + end.size()));
}

std::string ChatEncoder::decode(const std::vector<int64_t>& tokens) const {
  return processor_.tokenizer->decode(tokens, /*skip_special=*/true);
}

}  // namespace cosmos::trainer
