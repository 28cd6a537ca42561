// cosmos-forward: feeds a component folder (config.json + safetensors) with named tensors and
// writes what comes out, with --backward its gradients too. It is how anybody compares a model here
// with the Hugging Face class that it mirrors.

#include <cxxopts.hpp>
#include <filesystem>
#include <iostream>
#include <unordered_set>

#include "modules/hub/registry.h"
#include "modules/hub/safetensors.h"
#include "modules/lora/files.h"
#include "modules/registry.h"
#include "tools/device_option.h"
#include "tools/program.h"

namespace {

using namespace cosmos;
using namespace cosmos::modules;

constexpr const char* kHelp = R"(
Inputs are named as the Hugging Face class names its arguments; numbers (fps, conditioning_scale) are
1-element tensors; `img_context` beside `encoder_hidden_states` makes the pair; control residuals are
block_controlnet_hidden_states.0, .1, ... Outputs are named as the class names its output fields.

  method    reads                                     writes
  forward   hidden_states, timestep, ...              sample
  encode    sample                                    latent (the mode)
  decode    latent                                    sample
  generate  input_ids, max_new_tokens, ...            sequences (language models)

--backward takes the mean of squares of the output as loss (the sum of the means when there are
several) and adds `loss` and `grad.<parameter>` for every parameter that has a gradient. With --adapter
the base is frozen: gradients are those of the adapter.

Exit codes: 0 done, 1 bad input (one line on stderr), 2 wrong usage.)";

struct Arguments {
  std::string model, adapter, inputs, outputs, method, dtype;
  torch::Device device = torch::kCPU;
  bool backward = false;
};

/// The two that a model runs in here.
torch::Dtype run_dtype(const std::string& text) {
  require(text == "float32" || text == "bfloat16", "--dtype: expected float32 or bfloat16, got ",
          text);
  return text == "float32" ? torch::kFloat32 : torch::kBFloat16;
}

/// The tensors of `path` on `device`, floating ones as `dtype`.
TensorMap read_inputs(const std::string& path, torch::Dtype dtype, torch::Device device) {
  TensorMap inputs = load_safetensors(path);
  for (auto& [name, tensor] : inputs)
    tensor = tensor.is_floating_point() ? tensor.to(device, dtype) : tensor.to(device);
  return inputs;
}

/// Mean of squares of every output that can have a gradient, summed, in float32.
Tensor loss_of(const TensorMap& outputs) {
  Tensor loss = torch::zeros({});
  for (const auto& [name, output] : outputs)
    if (output.is_floating_point())  // not the indices of codes
      loss = loss + output.to(torch::kFloat32).square().mean().to(loss.device());
  return loss;
}

/// A registered name as the HF class spells it: what an adapter brings stands under PEFT's names.
std::string hf_name(std::string name) {
  const std::string infix = ".adapter.";
  const auto at = name.find(infix);
  if (at == std::string::npos) return name;
  const std::string factor = name.substr(at + infix.size());
  name.resize(at);
  return name + (factor == "lora_magnitude_vector" ? "." + factor : "." + factor + ".weight");
}

/// `loss` and `grad.<parameter>`, a tied weight once, under its first name.
TensorMap gradients(Model& model, const TensorMap& outputs) {
  Tensor loss = loss_of(outputs);
  require(loss.requires_grad(), "--backward: no output depends on a parameter");
  loss.backward();
  TensorMap result = {{"loss", loss.detach()}};
  std::unordered_set<const void*> seen;
  for (const auto& item : model.named_parameters()) {
    const Tensor& weight = item.value();
    if (seen.insert(weight.unsafeGetTensorImpl()).second && weight.grad().defined())
      result["grad." + hf_name(item.key())] = weight.grad();
  }
  return result;
}

void forward(const Arguments& arguments) {
  const torch::Dtype dtype = run_dtype(arguments.dtype);
  auto model = load_model(arguments.model, {.dtype = dtype});
  if (!arguments.adapter.empty()) load_adapter(*model, arguments.adapter);
  model->to(arguments.device);
  model->eval();
  const TensorMap inputs = read_inputs(arguments.inputs, dtype, arguments.device);

  torch::AutoGradMode record(arguments.backward);
  TensorMap outputs = model->run(arguments.method, inputs);
  if (arguments.backward) outputs.merge(gradients(*model, outputs));
  for (auto& [name, tensor] : outputs) tensor = tensor.detach();
  save_safetensors(arguments.outputs, outputs);
}

cxxopts::Options make_options() {
  cxxopts::Options options(
      "cosmos-forward",
      "Runs a component folder (config.json + safetensors) on named tensors.\n"
      "  cosmos-forward --model DIR --inputs IN.safetensors --outputs OUT.safetensors");
  auto add = options.add_options();
  add("model", "folder with config.json and safetensors", cxxopts::value<std::string>(), "DIR");
  add("adapter", "PEFT folder, or folder of a diffusers LoRA file, on top of the model",
      cxxopts::value<std::string>()->default_value(""), "DIR");
  add("inputs", "tensors to feed", cxxopts::value<std::string>(), "FILE");
  add("outputs", "file to write", cxxopts::value<std::string>(), "FILE");
  add("method", "forward, encode, decode or generate",
      cxxopts::value<std::string>()->default_value("forward"), "NAME");
  add("backward", "write loss and gradients too");
  add("dtype", "float32 or bfloat16, of weights and floating inputs",
      cxxopts::value<std::string>()->default_value("float32"), "TYPE");
  tools::add_device_option(options);
  add("h,help", "this text");
  return options;
}

/// Throws cxxopts' exceptions and Error on wrong usage.
Arguments parse(const cxxopts::ParseResult& parsed) {
  require(parsed.unmatched().empty(), "unexpected argument ",
          parsed.unmatched().empty() ? "" : parsed.unmatched()[0]);
  for (const char* name : {"model", "inputs", "outputs"})
    require(parsed.count(name) > 0, "--", name, " is missing");
  Arguments arguments{.model = parsed["model"].as<std::string>(),
                      .adapter = parsed["adapter"].as<std::string>(),
                      .inputs = parsed["inputs"].as<std::string>(),
                      .outputs = parsed["outputs"].as<std::string>(),
                      .method = parsed["method"].as<std::string>(),
                      .dtype = parsed["dtype"].as<std::string>(),
                      .device = tools::device_of(parsed),
                      .backward = parsed.count("backward") > 0};
  const std::string& method = arguments.method;
  require(method == "forward" || method == "encode" || method == "decode" || method == "generate",
          "--method: expected forward, encode, decode or generate, got ", method);
  run_dtype(arguments.dtype);
  return arguments;
}

int run(int argc, char** argv) {
  cxxopts::Options options = make_options();
  const auto parsed = options.parse(argc, argv);
  if (parsed.count("help")) return std::cout << options.help() << kHelp << '\n', 0;
  const Arguments arguments = tools::parse_usage([&] { return parse(parsed); });
  register_builtin_models();
  forward(arguments);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("cosmos-forward", argc, argv, run);
}
