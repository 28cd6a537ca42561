#include "trainer/loop/data_parallel.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "modules/lora/lora.h"

namespace cosmos::trainer {
namespace {

bool is_labelled_mean(const Json& value) {
  return value.is_object() && value.size() == 2 && value.contains("mean") && value.contains("n");
}

/// NaN travels as null.
double number(const Json& value) {
  return value.is_null() ? std::nan("") : value.get<double>();
}

Json merge_labelled(const std::vector<Json>& values) {
  double sum = 0;
  int64_t n = 0;
  for (const Json& value : values) {
    const auto count = value.at("n").get<int64_t>();
    sum += number(value.at("mean")) * static_cast<double>(count);
    n += count;
  }
  return {{"mean", sum / static_cast<double>(n)}, {"n", n}};
}

Json merge_values(const std::vector<Json>& values) {
  if (is_labelled_mean(values[0])) return merge_labelled(values);
  if (values[0].is_object()) return merge_rows(values);
  const bool numbers = std::all_of(values.begin(), values.end(), [](const Json& value) {
    return value.is_number_float() || value.is_null();
  });
  if (!numbers) return values[0];
  double sum = 0;
  for (const Json& value : values) sum += number(value);
  return sum / static_cast<double>(values.size());
}

}  // namespace

Json merge_rows(const std::vector<Json>& rows) {
  std::map<std::string, std::vector<Json>> by_key;
  for (const Json& row : rows)
    for (const auto& [key, value] : row.items()) by_key[key].push_back(value);
  Json merged = Json::object();
  for (const auto& [key, values] : by_key) merged[key] = merge_values(values);
  return merged;
}

int64_t shard_ranks(const ParallelConfig& config, int64_t ranks) {
  const int64_t others =
      config.pipeline * config.replica * config.expert * config.context * config.tensor;
  const int64_t shard =
      config.shard > 0 ? config.shard : std::max<int64_t>(1, ranks / std::max<int64_t>(1, others));
  require(shard * others == ranks, "trainer.parallel: pipeline ", config.pipeline, " x replica ",
          config.replica, " x shard ", shard, " x expert ", config.expert, " x context ",
          config.context, " x tensor ", config.tensor, " is ", shard * others,
          " ranks, but there are ", ranks,
          ranks == 1 ? " (start more with --nproc N, torchrun, srun or mpirun)" : "");
  return shard;
}

int64_t pipeline_chunks(const ParallelConfig& config) {
  return config.pipeline_schedule == "interleaved" ? config.pipeline_chunks : 1;
}

DataParallel::DataParallel(std::shared_ptr<Group> world, const ParallelConfig& config)
    : world_(std::move(world)), config_(config) {
  const int64_t shard = shard_ranks(config, ranks());
  if (!world_ && config.offload != "none") world_ = std::make_shared<Group>("world");
  if (ranks() > 1 || config.offload != "none")
    mesh_ =
        std::make_unique<Mesh>(world_,
                               Mesh::Axes{{"pipeline", config.pipeline},
                                          {"replica", config.replica},
                                          {"shard", shard},
                                          {"expert", config.expert},
                                          {"context", config.context},
                                          {"tensor", config.tensor}},
                               Mesh::Spans{{"data", {"replica", "shard", "expert"}},
                                           {"weights", {"shard", "expert", "context"}},
                                           {"experts", {"shard", "context", "tensor"}},
                                           {"model", {"shard", "expert", "context", "tensor"}}});
}

int64_t DataParallel::data_rank() const {
  return mesh_ ? mesh_->coordinate("data") : 0;
}

int64_t DataParallel::data_ranks() const {
  return mesh_ ? mesh_->axis("data").size() : 1;
}

std::shared_ptr<modules::BlockRunner> DataParallel::shard(
    modules::Model& model, std::shared_ptr<modules::BlockRunner> inner, ShardOptions options) {
  if (!mesh_) return inner;
  split_tokens(model);
  if (config_.tensor > 1)
    tensor_ = std::make_unique<TensorParallel>(
        model, mesh_->axis("tensor"), config_.sequence,
        context_ ? std::shared_ptr<const modules::TokenPlan>(context_)
                 : std::make_shared<const modules::TokenPlan>());
  place_inputs(model);
  if (config_.expert > 1) expert_ = std::make_unique<ExpertParallel>(model, mesh_->axis("expert"));
  TensorSlices slices = tensor_ ? tensor_->slices() : TensorSlices();
  if (expert_) slices.insert(expert_->slices().begin(), expert_->slices().end());
  options.reshard_after_forward = config_.reshard_after_forward;
  if (config_.pipeline > 1)
    options.stages = PipelineStages(model, config_.pipeline, pipeline_chunks(config_));
  sharded_ =
      std::make_shared<FullyShard>(model, *mesh_, options, std::move(inner), std::move(slices));
  if (config_.pipeline == 1) return sharded_;
  pipeline_ = std::make_shared<Pipeline>(model, *mesh_, options.stages,
                                         pipeline_schedule(config_.pipeline_schedule), sharded_);
  return pipeline_;
}

void DataParallel::split_tokens(modules::Model& model) {
  if (config_.context == 1) return;
  require(model.splits_tokens(), "trainer.parallel.context: expected 1 for a ", model.class_name(),
          ", which does not split its tokens, got ", config_.context);
  context_ = std::make_shared<ContextPlan>(mesh_->axis("context"),
                                           context_attention(config_.context_attention));
  model.set_token_plan(context_);
}

void DataParallel::place_inputs(const modules::Model& model) const {
  const bool sequence = config_.tensor > 1 && config_.sequence;
  if (config_.context == 1 && config_.tensor == 1) return;
  const int64_t tensor_rank = mesh_->coordinate("tensor");
  std::map<std::string, modules::Split> split;
  if (config_.tensor > 1)
    for (const auto& entry : model.parallel_plan()) split[entry.name] = entry.split;
  for (const auto& [name, linear, adapter] : modules::lora_layers(model)) {
    if (adapter->options().dropout == 0) continue;
    modules::InputPart part;
    const auto found = split.find(name);
    if (found != split.end() && found->second == modules::Split::kRow) {
      part.feature_rank = tensor_rank;
      part.feature_ranks = config_.tensor;
    }
    if ((config_.context > 1 || sequence) && model.reads_tokens(name)) {
      part.token_rank = mesh_->coordinate("context");
      part.token_ranks = config_.context;
      if (sequence && found == split.end()) {  // nobody gathers them before the product
        part.token_rank = part.token_rank * config_.tensor + tensor_rank;
        part.token_ranks *= config_.tensor;
      }
    }
    adapter->set_input_part(part);
  }
}

int64_t DataParallel::activation_bytes() const {
  return (tensor_ ? tensor_->bytes() : 0) + (expert_ ? expert_->bytes() : 0);
}

Tensor DataParallel::mean(const Tensor& scalar) const {
  if (!mesh_) return scalar;
  const Tensor sum = scalar.detach().clone().reshape({1});
  world_->all_reduce(sum).wait();
  return sum.reshape({}) / static_cast<double>(ranks());
}

Tensor DataParallel::sum_over_shards(Tensor scalar) const {
  if (!mesh_) return scalar;
  // Stages may hold numbers of different dtypes: the narrowest is that of one process.
  const bool narrow = scalar.scalar_type() != torch::kFloat64;
  const Tensor sum =
      torch::stack({scalar.detach().reshape({}).to(torch::kFloat64),
                    torch::full({}, narrow ? 1.0 : 0.0, torch::kFloat64).to(scalar.device())});
  mesh_->axis("model").all_reduce(sum).wait();
  mesh_->axis("pipeline").all_reduce(sum).wait();
  const bool any_narrow = config_.pipeline > 1 ? sum[1].item<double>() > 0 : narrow;
  return sum[0].to(any_narrow ? torch::kFloat32 : torch::kFloat64);
}

void DataParallel::max_over_ranks(const Tensor& x) const {
  if (mesh_) world_->all_reduce(x, Group::Reduce::kMax).wait();
}

bool DataParallel::any(bool here) const {
  if (!mesh_) return here;
  const Tensor flag = torch::full({1}, here ? 1.0 : 0.0);
  world_->all_reduce(flag, Group::Reduce::kMax).wait();
  return flag.item<float>() > 0;
}

Json DataParallel::merge(const Json& row) const {
  if (!mesh_) return row;
  std::vector<Json> rows;
  // Of those that read different samples: the others have the same row.
  for (const std::string& text : mesh_->axis("data").all_gather_text(row.dump()))
    rows.push_back(Json::parse(text));
  const Json merged = merge_rows(rows);
  return pipeline_ ? Json::parse(pipeline_->from_last(merged.dump())) : merged;
}

std::vector<std::string> DataParallel::texts(const std::string& text) const {
  return mesh_ ? world_->all_gather_text(text) : std::vector<std::string>{text};
}

std::string DataParallel::from_first(const std::function<std::string()>& fn) const {
  if (!mesh_) return fn();
  std::string answer;  // '+' and the text, or '-' and the error
  std::exception_ptr thrown;
  if (first()) try {
      answer = "+" + fn();
    } catch (const std::exception& e) {
      answer = std::string("-") + e.what();
      thrown = std::current_exception();
    }
  answer = world_->all_gather_text(answer)[0];
  if (thrown) std::rethrow_exception(thrown);
  require(answer[0] == '+', answer.substr(1));
  return answer.substr(1);
}

}  // namespace cosmos::trainer
