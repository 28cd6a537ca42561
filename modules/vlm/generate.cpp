#include "modules/vlm/generate.h"

#include <algorithm>

#include "modules/vlm/kv_cache.h"
#include "ops/linear/linear.h"

namespace cosmos::modules {
namespace {

// One answer being written.
struct Row {
  int64_t answer = 0;
  int64_t token = 0;          ///< to be read next
  int64_t position = 0;       ///< of `token`, the same on all axes
  std::vector<int64_t> seen;  ///< prompt and answer, for the repetition penalty
  Philox random;
};

class Generation {
 public:
  Generation(LanguageModel& model, const std::vector<Sequence>& prompts,
             const GenerateOptions& options)
      : model_(model), options_(options), answers_(prompts.size() * options.answers) {}

  std::vector<Answer> run(const std::vector<Sequence>& prompts) {
    Tensor logits = read_prompts(prompts);
    for (int64_t made = 0; !rows_.empty(); ++made) {
      choose(logits, made + 1 == options_.max_new_tokens);
      if (!rows_.empty()) logits = next_logits();
    }
    return std::move(answers_);
  }

 private:
  torch::Device device() const { return model_.parameters().front().device(); }

  // Fills the cache, one row a prompt, then repeats rows for the answers. -> [rows, V]
  Tensor read_prompts(const std::vector<Sequence>& prompts) {
    LanguageModelInputs packed = pack_sequences(model_, prompts);
    const auto count = static_cast<int64_t>(prompts.size());
    int64_t longest = 0;
    for (const Sequence& prompt : prompts) longest = std::max(longest, prompt.length());
    cache_ = std::make_unique<KvCache>(model_.config().text.num_hidden_layers, count,
                                       longest + options_.max_new_tokens);
    const Tensor hidden = model_.forward(packed, cache_.get())[0];
    std::vector<int64_t> last, copies;
    for (int64_t p = 0; p < count; ++p) {
      last.push_back(packed.offsets[p + 1] - 1);
      for (int64_t a = 0; a < options_.answers; ++a) {
        copies.push_back(p);
        rows_.push_back(first_row(prompts[p], packed, p, p * options_.answers + a));
      }
    }
    const Tensor repeat = torch::tensor(copies, torch::kInt64).to(hidden.device());
    if (options_.answers > 1) cache_->keep_rows(repeat);
    const Tensor ends = torch::tensor(last, torch::kInt64).to(hidden.device());
    return model_.logits(hidden.index_select(0, ends)).index_select(0, repeat);
  }

  Row first_row(const Sequence& prompt, const LanguageModelInputs& packed, int64_t p,
                int64_t answer) const {
    const int64_t begin = packed.offsets[p], length = prompt.length();
    Row row{.answer = answer,
            .position = packed.position_ids.narrow(2, begin, length).max().item<int64_t>() + 1,
            .seen = {},
            .random = Philox(options_.seed, Purpose::kToken, options_.first_index + answer)};
    if (options_.sampling.repetition_penalty != 1) {
      const Tensor ids = prompt.input_ids.cpu().contiguous();
      row.seen.assign(ids.data_ptr<int64_t>(), ids.data_ptr<int64_t>() + length);
    }
    return row;
  }

  // The next token of every row; rows that end are taken out. logits: [rows, V]
  void choose(const Tensor& logits, bool last) {
    const Tensor wide = logits.to(torch::kFloat32).cpu();
    const SamplingConfig& sampling = options_.sampling;
    std::vector<int64_t> kept;
    std::vector<Row> going;
    for (std::size_t r = 0; r < rows_.size(); ++r) {
      Row& row = rows_[r];
      const Tensor own = wide[static_cast<int64_t>(r)];
      row.token = choose_token(process_logits(own, sampling, row.seen), sampling, row.random);
      if (sampling.repetition_penalty != 1) row.seen.push_back(row.token);
      const bool stop = record(row, own);
      if (stop || last) continue;
      kept.push_back(static_cast<int64_t>(r));
      going.push_back(std::move(row));
    }
    if (kept.size() < rows_.size() && !kept.empty())
      cache_->keep_rows(torch::tensor(kept, torch::kInt64).to(device()));
    rows_ = std::move(going);
  }

  // Whether the answer ends here.
  bool record(const Row& row, const Tensor& logits) {
    Answer& answer = answers_[static_cast<std::size_t>(row.answer)];
    const double temperature = options_.sampling.do_sample ? options_.sampling.temperature : 1.0;
    const Tensor scaled = logits / temperature;
    answer.tokens.push_back(row.token);
    answer.log_probs.push_back((scaled[row.token] - scaled.logsumexp(0)).item<double>());
    const auto& stops = options_.stop_tokens;
    answer.stopped = std::find(stops.begin(), stops.end(), row.token) != stops.end();
    const bool wanted = !options_.on_token || options_.on_token(row.answer, row.token);
    return answer.stopped || !wanted;
  }

  Tensor next_logits() {
    std::vector<int64_t> tokens, positions;
    for (Row& row : rows_) {
      tokens.push_back(row.token);
      positions.push_back(row.position++);
    }
    const auto column = [&](const std::vector<int64_t>& values) {
      return torch::tensor(values, torch::kInt64).unsqueeze(1).to(device());
    };
    const Tensor hidden = model_.forward(
        {.input_ids = column(tokens), .position_ids = column(positions)}, cache_.get());
    return model_.logits(hidden.squeeze(1));
  }

  LanguageModel& model_;
  const GenerateOptions& options_;
  std::vector<Answer> answers_;
  std::vector<Row> rows_;
  std::unique_ptr<KvCache> cache_;
};

}  // namespace

std::vector<Answer> generate(LanguageModel& model, const std::vector<Sequence>& prompts,
                             const GenerateOptions& options) {
  options.sampling.check("generation");
  require(options.max_new_tokens > 0 && options.answers > 0,
          "generation: max_new_tokens and answers: expected positive numbers, got ",
          options.max_new_tokens, " and ", options.answers);
  const torch::NoGradGuard no_grad;
  const ops::StreamFewRows stream;
  return Generation(model, prompts, options).run(prompts);
}

TensorMap run_generate(LanguageModel& model, TensorMap inputs) {
  const auto take = [&](const char* name, double otherwise) {
    const auto found = inputs.find(name);
    if (found == inputs.end()) return otherwise;
    require(found->second.numel() == 1, name, ": expected one number, got shape ",
            found->second.sizes());
    const double value = found->second.item<double>();
    inputs.erase(found);
    return value;
  };
  GenerateOptions options;
  options.max_new_tokens = static_cast<int64_t>(take("max_new_tokens", 128));
  options.sampling.repetition_penalty = take("repetition_penalty", 1);
  const LanguageModelInputs batch = language_model_inputs(inputs, model.class_name());
  Tensors rows;
  for (const Answer& answer : generate(model, split_batch(model, batch), options))
    rows.push_back(torch::tensor(answer.tokens, torch::kInt64));
  return {{"sequences", torch::cat({batch.input_ids.cpu(), torch::stack(rows)}, 1)}};
}

Tensors answer_log_probs(LanguageModel& model, const std::vector<Sequence>& sequences,
                         const std::vector<int64_t>& begin, double temperature) {
  require(begin.size() == sequences.size(), "answer_log_probs: expected ", sequences.size(),
          " beginnings, got ", begin.size());
  std::vector<Sequence> answered = sequences;
  for (std::size_t s = 0; s < answered.size(); ++s) {
    require(begin[s] >= 1 && begin[s] <= answered[s].length(), "answer_log_probs: sequence ", s,
            ": expected an answer that begins in [1, ", answered[s].length(), "], got ", begin[s]);
    answered[s].answer_begin = begin[s];
  }
  const LanguageModelInputs packed = pack_sequences(model, answered);
  std::vector<int64_t> before, lengths;
  Tensors targets;
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    const int64_t length = sequences[s].length();
    for (int64_t i = begin[s]; i < length; ++i) before.push_back(packed.offsets[s] + i - 1);
    targets.push_back(sequences[s].input_ids.narrow(0, begin[s], length - begin[s]));
    lengths.push_back(length - begin[s]);
  }
  const Tensor hidden = model.forward(packed)[0];
  const Tensor rows = torch::tensor(before, torch::kInt64).to(hidden.device());
  const Tensor target = torch::cat(targets);
  const Tensor log_probs = model.run_head(
      hidden.index_select(0, rows), [target, temperature](const Tensor& x, const Linear& head) {
        return linear_log_probs(x, head, target, temperature);
      });
  return log_probs.split_with_sizes(lengths);
}

}  // namespace cosmos::modules
