// bench-language: a language model's training step, prompt or written tokens, timed; or the floor
// of these: their own products and attention with everything else left out, or the weights read
// once a token; or a training step on sequences of many lengths, packed or padded. One JSON object
// on stdout.
// tools/bench/language.sh runs it in pairs with transformers, tools/bench/packing.sh with itself.

#include <chrono>
#include <cmath>
#include <cxxopts.hpp>
#include <iostream>
#include <random>

#include "modules/core/init.h"
#include "modules/hub/model_weights.h"
#include "modules/vlm/generate.h"
#include "ops/adamw/adamw.h"
#include "tools/bench/measure.h"
#include "tools/program.h"

namespace {

using namespace cosmos;
using namespace cosmos::modules;

constexpr double kClip = 1.0;

struct Options {
  std::string what, shape;
  torch::Dtype dtype = torch::kFloat32;
  int64_t tokens = 1024, steps = 5;
};

/// The shapes, the same as in language_peer.py: "small" of the pairs, "2b" of Reason2-2B's text,
/// "tiny" of the packing benchmark.
LanguageModelConfig bench_config(const std::string& shape) {
  Json config = {
      {"vocab_size", 32768},    {"hidden_size", 1024},        {"intermediate_size", 3072},
      {"num_hidden_layers", 8}, {"num_attention_heads", 16},  {"num_key_value_heads", 8},
      {"head_dim", 64},         {"tie_word_embeddings", true}};
  if (shape == "2b")
    config.update({{"vocab_size", 151936},
                   {"hidden_size", 2048},
                   {"intermediate_size", 6144},
                   {"num_hidden_layers", 28},
                   {"head_dim", 128}});
  if (shape == "tiny")
    config.update({{"vocab_size", 8192},
                   {"hidden_size", 256},
                   {"intermediate_size", 768},
                   {"num_hidden_layers", 4},
                   {"num_attention_heads", 4},
                   {"num_key_value_heads", 2}});
  return LanguageModelConfig::from_json("Qwen3ForCausalLM", config, "bench");
}

std::unique_ptr<LanguageModel> make_model(const Options& options) {
  std::unique_ptr<LanguageModel> model;
  {
    const SkipInit skip;
    model = std::make_unique<LanguageModel>(bench_config(options.shape));
  }
  cast_model(*model, options.dtype);
  const torch::NoGradGuard no_grad;
  for (auto& item : model->named_parameters())
    item.value().dim() > 1 ? item.value().normal_(0, 0.02) : item.value().fill_(1);
  return model;
}

Tensor random_ids(const LanguageModel& model, int64_t tokens) {
  return torch::randint(model.config().text.vocab_size, {tokens}, torch::kInt64);
}

/// Forward, cross-entropy of each next token, backward, clipping, AdamW.
class Trainer {
 public:
  explicit Trainer(const Options& options) : model_(make_model(options)) {
    for (const Tensor& p : model_->parameters()) {
      state_.params.push_back(p);
      state_.exp_avg.push_back(torch::zeros_like(p));
      state_.exp_avg_sq.push_back(torch::zeros_like(p));
      state_.step.push_back(torch::zeros({}));
    }
  }
  LanguageModel& model() { return *model_; }

  /// target: of each row of the hidden states, -100 where there is none
  double operator()(const LanguageModelInputs& inputs, const Tensor& target) {
    const Tensor rows = target.ne(-100).nonzero().squeeze(1);
    const Tensor wanted = target.index_select(0, rows);
    const Tensor hidden = model_->forward(inputs).flatten(0, 1).index_select(0, rows);
    const Tensor loss = model_->run_head(hidden, [wanted](const Tensor& x, const Linear& head) {
      return linear_cross_entropy(x, head, wanted, -100, 0, 0);
    });
    loss.backward();
    const torch::NoGradGuard no_grad;
    state_.grads.clear();
    for (const Tensor& p : state_.params) state_.grads.push_back(p.grad());
    const Tensor clip = ops::clip_coefficient(ops::grad_norm(state_.grads), kClip);
    ops::adamw_step(state_, {.lr = 1e-4}, clip);
    for (Tensor& p : state_.params) p.mutable_grad().reset();
    return loss.item<double>();
  }

 private:
  std::unique_ptr<LanguageModel> model_;
  ops::AdamWState state_;
};

/// Every product and causal attention of a pass over `tokens`, on tensors of its own.
class Floor {
 public:
  Floor(const Options& options, bool training) : tokens_(options.tokens), training_(training) {
    const TextConfig text = bench_config(options.shape).text;
    const int64_t D = text.hidden_size, I = text.intermediate_size, h = *text.head_dim;
    const int64_t q = text.num_attention_heads, kv = *text.num_key_value_heads;
    const auto as = torch::TensorOptions(options.dtype);
    for (int64_t layer = 0; layer < text.num_hidden_layers; ++layer) {
      for (const auto& [in, out] : std::vector<std::pair<int64_t, int64_t>>{
               {D, q * h}, {D, kv * h}, {D, kv * h}, {q * h, D}, {D, I}, {D, I}, {I, D}})
        product(tokens_, in, out, as);
      const auto heads = [&] { return torch::randn({1, q, tokens_, h}, as); };
      attentions_.push_back({heads(), heads(), heads(), heads()});
    }
    product(training ? tokens_ : 1, D, text.vocab_size, as);
  }

  double operator()() {
    const torch::NoGradGuard no_grad;
    Tensors kept;  // activations and weight gradients live until the step ends, as in training
    for (const Product& p : products_) keep(kept, torch::linear(p.x, p.weight));
    for (const Attention& a : attentions_) {
      const auto [out, lse] =
          at::_scaled_dot_product_flash_attention_for_cpu(a.q, a.k, a.v, 0.0, /*is_causal=*/true);
      keep(kept, out);
      if (training_)
        at::_scaled_dot_product_flash_attention_for_cpu_backward(a.grad, a.q, a.k, a.v, out, lse,
                                                                 0.0, true);
    }
    if (!training_) return 0;
    for (const Product& p : products_) {
      torch::mm(p.grad, p.weight);
      kept.push_back(torch::mm(p.grad.t(), p.x));
    }
    return 0;
  }

 private:
  struct Product {
    Tensor x, weight, grad;
  };
  struct Attention {
    Tensor q, k, v, grad;
  };
  void keep(Tensors& kept, Tensor x) const {
    if (training_) kept.push_back(std::move(x));
  }
  void product(int64_t rows, int64_t in, int64_t out, const torch::TensorOptions& as) {
    products_.push_back({torch::randn({rows, in}, as), torch::randn({out, in}, as),
                         training_ ? torch::randn({rows, out}, as) : Tensor()});
  }

  int64_t tokens_;
  bool training_;
  std::vector<Product> products_;
  std::vector<Attention> attentions_;
};

/// Every weight read once, which is the least that a written token takes.
Json read_weights(const Options& options) {
  const auto model = make_model(options);
  const torch::NoGradGuard no_grad;
  const auto step = [&] {
    for (const Tensor& p : model->parameters()) p.flatten().view(torch::kFloat32).sum();
    return 0;
  };
  return tools::measure(step, options.steps);
}

Json train(const Options& options) {
  Trainer trainer(options);
  const Tensor ids = random_ids(trainer.model(), options.tokens);
  Tensor target = ids.roll(-1);
  target[-1] = -100;
  const auto step = [&] { return trainer({.input_ids = ids.unsqueeze(0)}, target); };
  return tools::measure(step, options.steps);
}

Json prefill(const Options& options) {
  const auto model = make_model(options);
  const Tensor ids = random_ids(*model, options.tokens);
  const auto step = [&] {
    const auto answers = generate(*model, {{.input_ids = ids}},
                                  {.sampling = {.do_sample = false}, .max_new_tokens = 1});
    return answers[0].log_probs[0];
  };
  return tools::measure(step, options.steps);
}

/// Seconds a token, from the first one written to the last: reading the prompt is no part of it.
Json decode(const Options& options) {
  constexpr int64_t kPrompt = 64;
  using Clock = std::chrono::steady_clock;
  const auto model = make_model(options);
  const Tensor ids = random_ids(*model, kPrompt);
  Json seconds = Json::array();
  const auto step = [&] {
    Clock::time_point first, last;
    const auto on_token = [&](int64_t, int64_t) {
      last = Clock::now();
      if (first == Clock::time_point()) first = last;
      return true;
    };
    generate(*model, {{.input_ids = ids}},
             {.sampling = {.do_sample = false},
              .max_new_tokens = options.tokens + 1,
              .on_token = on_token});
    const std::chrono::duration<double> took = last - first;
    seconds.push_back(took.count() / static_cast<double>(options.tokens));
    return 0;
  };
  Json result = tools::measure(step, options.steps);
  result["step_s"] = seconds;
  return result;
}

/// Lengths between 16 and `longest`, evenly in their logarithm: most are short, as in chats.
std::vector<int64_t> spread_lengths(int64_t longest, int64_t count) {
  std::mt19937 draw(7);
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < count; ++i) {
    const double part = static_cast<double>(draw()) / static_cast<double>(std::mt19937::max());
    const double length = 16 * std::pow(static_cast<double>(longest) / 16, part);
    lengths.push_back(static_cast<int64_t>(length));
  }
  lengths[0] = longest;
  return lengths;
}

/// 16 sequences as one packed row, or as rows of a padded batch. The target is the same.
Json many_lengths(const Options& options, bool packed) {
  Trainer trainer(options);
  const std::vector<int64_t> lengths = spread_lengths(options.tokens, 16);
  const int64_t longest = options.tokens;
  LanguageModelInputs inputs;
  Tensors rows, masks, targets;
  std::vector<Sequence> sequences;
  int64_t all = 0;
  for (const int64_t length : lengths) {
    const Tensor ids = random_ids(trainer.model(), length);
    Tensor target = ids.roll(-1);
    target[-1] = -100;
    const auto pad = [&](const Tensor& x, int64_t with) {
      return torch::constant_pad_nd(x, {0, longest - length}, with);
    };
    sequences.push_back({.input_ids = ids});
    rows.push_back(pad(ids, 0));
    masks.push_back(pad(torch::ones_like(ids), 0));
    targets.push_back(packed ? target : pad(target, -100));
    all += length;
  }
  if (packed) {
    inputs = pack_sequences(trainer.model(), sequences);
  } else {
    inputs.input_ids = torch::stack(rows);
    inputs.attention_mask = torch::stack(masks);
  }
  const Tensor target = torch::cat(targets);
  const auto step = [&] { return trainer(inputs, target); };
  Json result = tools::measure(step, options.steps);
  result["tokens"] = all;
  result["places"] = packed ? all : longest * static_cast<int64_t>(lengths.size());
  return result;
}

Json measure_what(const Options& options) {
  if (options.what == "train") return train(options);
  if (options.what == "prefill") return prefill(options);
  if (options.what == "decode") return decode(options);
  if (options.what == "packed" || options.what == "padded")
    return many_lengths(options, options.what == "packed");
  if (options.what == "floor-decode") return read_weights(options);
  const bool training = options.what == "floor-train";
  require(training || options.what == "floor-prefill", "--what: expected train, prefill, decode, ",
          "one of these with floor- before it, packed or padded, got ", options.what);
  Floor floor(options, training);
  return tools::measure(floor, options.steps);
}

int run(int argc, char** argv) {
  cxxopts::Options options("bench-language", "Times a language model, or its floor.");
  // clang-format off
  options.add_options()
    ("what", "train, prefill, decode; floor- and one of these; packed or padded",
     cxxopts::value<std::string>()->default_value("train"))
    ("shape", "small: width 1024, 8 layers, 32k classes; 2b: Reason2-2B's; tiny: width 256",
     cxxopts::value<std::string>()->default_value("small"))
    ("dtype", "float32 or bfloat16", cxxopts::value<std::string>()->default_value("float32"))
    ("tokens", "of the sequence; decode: written; packed, padded: of the longest",
     cxxopts::value<int64_t>()->default_value("1024"))
    ("steps", "to time, the first included", cxxopts::value<int64_t>()->default_value("5"))
    ("threads", "CPU threads", cxxopts::value<int>()->default_value("2"))
    ("h,help", "this text");
  // clang-format on
  const auto args = options.parse(argc, argv);
  if (args.count("help")) {
    std::cout << options.help() << "\n";
    return 0;
  }
  torch::set_num_threads(args["threads"].as<int>());
  torch::manual_seed(0);
  const Options chosen{.what = args["what"].as<std::string>(),
                       .shape = args["shape"].as<std::string>(),
                       .dtype = parse_dtype(args["dtype"].as<std::string>()),
                       .tokens = args["tokens"].as<int64_t>(),
                       .steps = args["steps"].as<int64_t>()};
  require(chosen.shape == "small" || chosen.shape == "2b" || chosen.shape == "tiny",
          "--shape: expected small, 2b or tiny, got ", chosen.shape);
  Json result = measure_what(chosen);
  result["what"] = chosen.what;
  result["by"] = chosen.what.rfind("floor", 0) == 0 ? "floor" : "cosmos";
  result["shape"] = chosen.shape;
  result["dtype"] = dtype_name(chosen.dtype);
  result["threads"] = torch::get_num_threads();
  std::cout << result.dump() << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("bench-language", argc, argv, run);
}
