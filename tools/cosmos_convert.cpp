// cosmos-convert: Hugging Face folders in, Hugging Face folders out. Changes dtype and shard size,
// folds adapters in, turns checkpoints into exports, translates adapters between PEFT and
// diffusers, and whole models between NVIDIA's own files and diffusers' folders.

#define CXXOPTS_VECTOR_DELIMITER '\x1f'  // values of --set hold commas
#include <cxxopts.hpp>
#include <filesystem>
#include <iostream>

#include "modules/hub/atomic_file.h"
#include "modules/hub/export_folder.h"
#include "modules/hub/json_file.h"
#include "modules/hub/model_weights.h"
#include "modules/hub/pipeline_folder.h"
#include "modules/hub/registry.h"
#include "modules/hub/weight_folder.h"
#include "modules/lora/files.h"
#include "modules/registry.h"
#include "tools/byte_size.h"
#include "tools/convert_embed.h"
#include "tools/convert_native.h"
#include "tools/program.h"

namespace {

namespace fs = std::filesystem;
using namespace cosmos;
using namespace cosmos::modules;
using Lines = std::vector<std::string>;

constexpr const char* kHelp = R"(
Commands
  export   a checkpoint, component or pipeline folder -> a folder as save_pretrained writes it;
           weights are checked strictly against their class on the way
  cast     the same with another --dtype
  merge    the same with --adapter folded into the base (computed in float32, cast last), or with
           the trained part of a checkpoint whose run froze the rest
  embed    captions -> text embeddings (cosmos-convert embed --help)
  adapter  an adapter as PEFT folder or diffusers LoRA file (--format peft|diffusers)
  import   NVIDIA's own checkpoint -> a diffusers folder; recognised by its keys, no code in it is
           ever run. Predict1, 2 and 2.5, Transfer2.5 (base and control branch), Wan's VAE, Cosmos
           Tokenizer; from .pt, .pth, .jit, .safetensors, a folder of torch.distributed.checkpoint,
           of sharded safetensors, or of encoder.jit and decoder.jit
  native   the way back: a component folder, or a pipeline's transformer and controlnet -> a file
           ending in .pt or .safetensors

--model takes a component folder (config.json + safetensors), a pipeline folder (model_index.json;
components of classes unknown here are copied as they are), or a checkpoint of a run
(step-00000100; --ema takes its averages). --adapter takes a PEFT folder, a folder with
pytorch_lora_weights.safetensors, that file, or a checkpoint with an adapter.

--fp8 keeps the products of a language model's layers as compressed-tensors' FP8_DYNAMIC does (vLLM and
transformers load it): float8 weights with a scale a row; head and vision tower stay in --dtype.

import takes no more memory than one tensor. --pipeline writes model_index.json and the scheduler
too, with what --vae (native file or folder), --text-encoder and --tokenizer name; Transfer2.5 is
always a pipeline. --set changes a key of config.json that weights do not tell:
--set 'rope_scale=[1,3,3]'. Every key that was dropped or made is listed in conversion.txt.

An export carries the base's LICENSE and NOTICE files and a model card. The card holds what --name,
--base-model and --data say, and never a local path, host or user name.

Examples
  cosmos-convert cast --model transformer --output transformer-bf16 --dtype bfloat16
  cosmos-convert merge --model Cosmos-Predict2.5-2B --adapter run/checkpoints/step-00001000
      --output merged --base-model nvidia/Cosmos-Predict2.5-2B --data "200 clips of our arm"
  cosmos-convert import --model model.pt --output Predict2 --pipeline --vae tokenizer/tokenizer.pth
  cosmos-convert native --model Predict2/transformer --output model.pt

Exit codes: 0 done, 1 bad input (one line on stderr, nothing written), 2 wrong usage.)";

struct Arguments {
  std::string command, model, adapter, output, format, name, base_model, data;
  std::optional<torch::Dtype> dtype = std::nullopt;
  int64_t max_shard_bytes = 0;
  bool ema = false, overwrite = false, fp8 = false;
  tools::NativeArguments native = {};
};

bool is_native(const std::string& command) {
  return command == "import" || command == "native";
}

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

/// The folder of a checkpoint that holds the model; any other folder is itself.
fs::path model_folder(const fs::path& dir, bool ema) {
  require(is_folder(dir), dir.string(), ": no such folder");
  if (ema) {
    require(is_file(dir / "ema" / "config.json"), dir.string(), ": holds no averages (ema/)");
    return dir / "ema";
  }
  if (is_file(dir / "config.json") || is_pipeline_folder(dir)) return dir;
  if (is_file(dir / "model" / "config.json")) return dir / "model";
  require(!is_file(dir / "trainable.safetensors"), dir.string(),
          ": this checkpoint holds what was trained, not the base; use: cosmos-convert merge "
          "--model BASE --adapter ",
          dir.string());
  fail(dir.string(), ": expected config.json, model_index.json or a run's checkpoint");
}

fs::path adapter_path(const fs::path& path) {
  return is_folder(path / "adapter") ? path / "adapter" : path;
}

/// The type that most floating weights have; a few may be kept in float32 beside it.
torch::Dtype dtype_of(const WeightFolder& weights) {
  std::map<torch::Dtype, uint64_t> bytes;
  for (const auto& name : weights.names()) {
    const TensorInfo& info = weights.info(name);
    if (c10::isFloatingType(info.dtype)) bytes[info.dtype] += info.end - info.begin;
  }
  torch::Dtype best = torch::kFloat32;
  for (const auto& [dtype, count] : bytes)
    if (count > (bytes.count(best) ? bytes[best] : 0)) best = dtype;
  return best;
}

bool knows_class(const fs::path& dir) {
  if (!is_file(dir / "config.json")) return false;
  const Json config = read_json(dir / "config.json");
  return is_known_model(config);
}

/// What travels with a component besides config and weights: tokenizers, generation settings.
void copy_files(const fs::path& from, const fs::path& to, bool weights) {
  fs::create_directories(to);
  for (const auto& entry : fs::directory_iterator(from)) {
    const std::string name = entry.path().filename().string();
    const bool is_weight = name.ends_with(".safetensors") ||
                           name.ends_with(".safetensors.index.json") || name.ends_with(".bin") ||
                           name.ends_with(".pt") || name.ends_with(".pth");
    if (name.starts_with(".") || name == "README.md" || (is_weight && !weights)) continue;
    if (entry.is_directory()) {
      copy_files(entry.path(), to / name, weights);
    } else if (entry.is_regular_file()) {
      fs::copy_file(entry.path(), to / name, fs::copy_options::overwrite_existing);
    }
  }
}

/// A checkpoint of a run that trained a part of the weights themselves, the rest frozen.
bool holds_trained_part(const fs::path& dir) {
  return is_file(dir / "trainable.safetensors") && !is_folder(dir / "adapter");
}

/// Puts the trained part of a checkpoint in place of the base's weights.
void load_trained_part(Model& model, const fs::path& checkpoint, bool ema) {
  const fs::path file = checkpoint / (ema ? "ema.safetensors" : "trainable.safetensors");
  require(is_file(file), file.string(), ": no such file", ema ? " (the run kept no averages)" : "");
  const torch::NoGradGuard no_grad;
  auto parameters = model.named_parameters();
  for (const auto& [name, tensor] : load_safetensors(file)) {
    Tensor* place = parameters.find(name);
    require(place != nullptr, file.string(), ": the model has no weight ", name,
            " (was the run on another base?)");
    require(place->sizes() == tensor.sizes(), name, ": the checkpoint has ", tensor.sizes(),
            ", the model wants ", place->sizes());
    place->copy_(tensor);
  }
}

/// Loads, merges when there is an adapter, and writes one component. Returns a line for the user.
std::string convert_component(const fs::path& from, const fs::path& to, const Arguments& arguments,
                              bool merge) {
  const torch::Dtype stored = dtype_of(WeightFolder(from));
  auto model = load_model(from, {.dtype = merge ? torch::kFloat32 : stored});
  if (merge) {
    if (holds_trained_part(arguments.adapter)) {
      load_trained_part(*model, arguments.adapter, arguments.ema);
    } else {
      load_adapter(*model, adapter_path(arguments.adapter));
      require_effect(*model);
      merge_lora(*model);
    }
  }
  copy_files(from, to, /*weights=*/false);
  const torch::Dtype dtype = arguments.dtype.value_or(stored);
  require(!arguments.fp8 || model->config_json().contains("architectures"), from.string(),
          ": --fp8 goes with language models, got ", model->class_name());
  save_model(to, *model,
             {.dtype = dtype, .max_shard_bytes = arguments.max_shard_bytes, .fp8 = arguments.fp8});
  int64_t parameters = 0;
  for (const auto& entry : base_tensors(*model)) parameters += entry.tensor.numel();
  return model->class_name() + ", " + std::to_string(parameters) + " parameters, " +
         dtype_name(dtype) + (arguments.fp8 ? " and FP8" : "") + (merge ? ", merged" : "");
}

/// The command as the card shows it: names in place of paths.
std::string public_command(const Arguments& arguments) {
  std::string text = "cosmos-convert " + arguments.command + " --model " +
                     (arguments.base_model.empty() ? "MODEL" : arguments.base_model);
  if (!arguments.adapter.empty()) text += " --adapter ADAPTER";
  if (!arguments.format.empty() && arguments.command == "adapter")
    text += " --format " + arguments.format;
  if (arguments.dtype) text += " --dtype " + dtype_name(*arguments.dtype);
  if (arguments.ema) text += " --ema";
  if (arguments.fp8) text += " --fp8";
  return text;
}

void write_card(const fs::path& base, const fs::path& out, const Arguments& arguments,
                const std::string& library) {
  const ModelCard card{.title = arguments.name,
                       .base_model = arguments.base_model,
                       .data = arguments.data,
                       .command = public_command(arguments),
                       .library_name = library,
                       .licences = carry_licences(base, out),
                       .base_terms = licence_terms(base),
                       .adapter = arguments.command == "adapter"};
  write_model_card(out, card);
  if (card.licences.empty())
    std::cout
        << "note: no LICENSE file lies beside the base model; add its licence before you publish\n";
}

std::string library_of(const fs::path& dir) {
  if (is_pipeline_folder(dir)) return "diffusers";
  return read_json(dir / "config.json").contains("architectures") ? "transformers" : "diffusers";
}

void convert_pipeline(const fs::path& from, const fs::path& to, const Arguments& arguments) {
  const PipelineIndex index = read_pipeline_index(from);
  const bool merge = !arguments.adapter.empty();
  require(!merge || index.components.count("transformer") > 0, from.string(),
          ": has no component \"transformer\" to merge the adapter into");
  copy_files(from, to, /*weights=*/true);
  for (const auto& [name, component] : index.components) {
    if (component.class_name.empty() || !knows_class(from / name)) continue;
    fs::remove_all(to / name);
    std::cout << name << ": "
              << convert_component(from / name, to / name, arguments,
                                   merge && name == "transformer")
              << "\n";
  }
}

void convert(const Arguments& arguments) {
  // Of a trained part the averages lie beside it, not beside the base.
  const bool base_ema = arguments.ema && !holds_trained_part(arguments.adapter);
  const fs::path from = model_folder(arguments.model, base_ema);
  ExportFolder out(arguments.output, arguments.overwrite);
  if (is_pipeline_folder(from)) {
    convert_pipeline(from, out.path(), arguments);
  } else {
    std::cout << convert_component(from, out.path(), arguments, !arguments.adapter.empty()) << "\n";
  }
  write_card(from, out.path(), arguments, library_of(from));
  out.commit();
  std::cout << "wrote " << arguments.output << "\n";
}

void convert_adapter(const Arguments& arguments) {
  fs::path base = model_folder(arguments.model, /*ema=*/false);
  if (is_pipeline_folder(base)) base /= "transformer";
  auto model = load_model(base);  // float32: no adapter is rounded on its way
  load_adapter(*model, adapter_path(arguments.adapter));
  ExportFolder out(arguments.output, arguments.overwrite);
  const AdapterFileOptions options{.base_model = arguments.base_model};
  if (arguments.format == "peft") {
    save_peft_adapter(out.path(), *model, options);
  } else {
    save_diffusers_lora(out.path(), *model, options);
  }
  for (const auto& [name, text] : text_files(base))
    if (name != "generation_config.json") write_file(out.path() / name, text);
  write_card(base, out.path(), arguments, arguments.format == "peft" ? "peft" : "diffusers");
  out.commit();
  std::cout << "wrote " << arguments.output << ": "
            << lora_layers(*model).size() + lora_stacks(*model).size() << " adapted layers, "
            << arguments.format << "\n";
}

cxxopts::Options make_options() {
  cxxopts::Options options("cosmos-convert",
                           "Converts models and adapters between Hugging Face folders.");
  options.custom_help(
      "export|cast|merge|adapter|import|native --model PATH --output PATH [options]");
  const auto text = [](const char* otherwise) {
    return cxxopts::value<std::string>()->default_value(otherwise);
  };
  auto add = options.add_options();
  add("command", "export, cast, merge, adapter, import or native", text(""));
  add("model", "model to read", text(""), "PATH");
  add("output", "folder (native: file) to write", text(""), "PATH");
  add("adapter", "LoRA adapter to merge or translate", text(""), "PATH");
  add("dtype", "float32, bfloat16 or float16; none: as stored", text(""), "TYPE");
  add("max-shard-size", "largest weight file", text("10GB"), "SIZE");
  add("format", "of an adapter: peft or diffusers", text("peft"), "NAME");
  add("fp8", "export, cast, merge: a language model's products in FP8, a scale a row");
  add("ema", "take the checkpoint's averaged weights");
  add("name", "title of the model card", text("Cosmos model"), "TEXT");
  add("base-model", "name of the base model, for the card", text(""), "NAME");
  add("data", "what it was trained on, for the card", text(""), "TEXT");
  add("pipeline", "import: a pipeline folder around the model");
  add("vae", "import --pipeline: its VAE, native or diffusers", text(""), "PATH");
  add("text-encoder", "import --pipeline: folder of its text encoder", text(""), "DIR");
  add("tokenizer", "import --pipeline: folder of its tokenizer", text(""), "DIR");
  add("set", "import: KEY=JSON of config.json, several times", cxxopts::value<Lines>(), "KEY=JSON");
  add("overwrite", "replace an export of the same name");
  add("h,help", "this text");
  options.parse_positional({"command"});
  options.positional_help("");
  return options;
}

Json parse_settings(const Lines& lines) {
  Json config = Json::object();
  for (const auto& line : lines) {
    const std::size_t equals = line.find('=');
    require(equals != std::string::npos && equals > 0, "--set: expected KEY=JSON, got ", line);
    config[line.substr(0, equals)] = parse_json(line.substr(equals + 1), "--set " + line);
  }
  return config;
}

tools::NativeArguments parse_native(const cxxopts::ParseResult& parsed, const Arguments& common) {
  const auto text = [&](const char* key) { return parsed[key].as<std::string>(); };
  const Lines settings = parsed.count("set") ? parsed["set"].as<Lines>() : Lines();
  tools::NativeArguments arguments{
      .model = common.model,
      .output = common.output,
      .vae = text("vae"),
      .text_encoder = text("text-encoder"),
      .tokenizer = text("tokenizer"),
      .dtype = common.dtype,
      .max_shard_bytes = common.max_shard_bytes,
      .import = {.ema = common.ema, .config = parse_settings(settings)},
      .pipeline = parsed.count("pipeline") > 0,
      .overwrite = common.overwrite};
  for (const char* part : {"vae", "text-encoder", "tokenizer"})
    require(text(part).empty() || (arguments.pipeline && common.command == "import"), "--", part,
            " goes with import --pipeline");
  require(common.command == "import" || (!common.ema && settings.empty() && !common.dtype),
          "native takes a model as it is: no --ema, --set or --dtype");
  return arguments;
}

/// Options that the command would not look at.
void refuse_stray(const cxxopts::ParseResult& parsed, const std::string& command) {
  for (const char* option : {"pipeline", "vae", "text-encoder", "tokenizer", "set"})
    require(command == "import" || parsed.count(option) == 0, "--", option, " goes with import");
  for (const char* option : {"name", "base-model", "data"})
    require(!is_native(command) || parsed.count(option) == 0, "--", option,
            " goes into a model card, which ", command, " does not write");
}

Arguments parse(const cxxopts::ParseResult& parsed) {
  const auto text = [&](const char* key) { return parsed[key].as<std::string>(); };
  Arguments arguments{
      .command = text("command"),
      .model = text("model"),
      .adapter = text("adapter"),
      .output = text("output"),
      .format = text("format"),
      .name = text("name"),
      .base_model = text("base-model"),
      .data = text("data"),
      .max_shard_bytes = tools::parse_bytes(text("max-shard-size"), "--max-shard-size"),
      .ema = parsed.count("ema") > 0,
      .overwrite = parsed.count("overwrite") > 0,
      .fp8 = parsed.count("fp8") > 0};
  const std::string& command = arguments.command;
  require(is_native(command) || command == "export" || command == "cast" || command == "merge" ||
              command == "adapter",
          "expected export, cast, merge, adapter, import or native, got \"", command, "\"");
  require(parsed.unmatched().empty(), "unexpected argument ",
          parsed.unmatched().empty() ? "" : parsed.unmatched()[0]);
  require(!arguments.model.empty(), "--model is missing");
  require(!arguments.output.empty(), "--output is missing");
  if (!text("dtype").empty()) arguments.dtype = parse_dtype(text("dtype"));
  require(command != "cast" || arguments.dtype, "cast needs --dtype");
  const bool takes_adapter = command == "merge" || command == "adapter";
  require(takes_adapter == !arguments.adapter.empty(), command,
          takes_adapter ? " needs --adapter" : " takes no --adapter (did you mean merge?)");
  require(!arguments.fp8 || command == "export" || command == "cast" || command == "merge",
          "--fp8 goes with export, cast and merge");
  require(!takes_adapter || !arguments.base_model.empty(), command,
          " needs --base-model NAME: the model card names the base");
  require(arguments.format == "peft" || arguments.format == "diffusers",
          "--format: expected peft or diffusers, got ", arguments.format);
  require_public(arguments.name, "--name");
  require_public(arguments.base_model, "--base-model");
  require_public(arguments.data, "--data");
  refuse_stray(parsed, command);
  if (is_native(command)) arguments.native = parse_native(parsed, arguments);
  return arguments;
}

int run(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "embed") return tools::run_embed(argc - 1, argv + 1);
  cxxopts::Options options = make_options();
  const auto parsed = options.parse(argc, argv);
  if (parsed.count("help")) return std::cout << options.help() << kHelp << '\n', 0;
  const Arguments arguments = tools::parse_usage([&] { return parse(parsed); });
  register_builtin_models();
  const std::string& command = arguments.command;
  if (command == "adapter") {
    convert_adapter(arguments);
  } else if (command == "import") {
    tools::import_command(arguments.native);
  } else if (command == "native") {
    tools::native_command(arguments.native);
  } else {
    convert(arguments);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("cosmos-convert", argc, argv, run);
}
