#include "trainer/loop/validation.h"

namespace cosmos::trainer {
namespace {

void write_means(const std::map<std::string, std::pair<double, int64_t>>& sums, Json& row,
                 const std::string& key) {
  if (sums.empty()) return;
  for (const auto& [label, sum] : sums)
    row[key][label] = {{"mean", sum.first / static_cast<double>(sum.second)}, {"n", sum.second}};
}

}  // namespace

void ScalarMeans::add(const std::map<std::string, Tensor>& scalars) {
  for (const auto& [name, value] : scalars) {
    auto& [sum, count] = sums_[name];
    sum += value.item<double>();
    ++count;
  }
}

void ScalarMeans::write(Json& row, const std::string& prefix) const {
  for (const auto& [name, sum] : sums_)
    row[prefix + name] = sum.first / static_cast<double>(sum.second);
}

void LabelledMeans::add(const std::vector<std::pair<std::string, double>>& values) {
  for (const auto& [label, value] : values) {
    auto& [sum, count] = sums_[label];
    sum += value;
    ++count;
  }
}

void LabelledMeans::write(Json& row, const std::string& key) const {
  write_means(sums_, row, key);
}

Json validation_metrics(Recipe& recipe, modules::Model& model, Dataset& data,
                        const ValidationOptions& options,
                        const std::function<void(const std::string&)>& report) {
  const torch::NoGradGuard no_grad;
  model.eval();
  ScalarMeans metrics;
  LabelledMeans by_label;
  double sum = 0;
  int64_t count = 0, batches = 0;
  const auto flush = [&](std::vector<Sample>& samples) {
    if (samples.empty() || (options.max_batches > 0 && batches >= options.max_batches)) return;
    const auto n = static_cast<int64_t>(samples.size());
    const Loss loss = recipe.loss(to_device(collate(samples), options.device), options.context);
    samples.clear();
    sum += loss.value.item<double>() * static_cast<double>(n);
    count += n;
    ++batches;
    metrics.add(loss.metrics);
    by_label.add(loss.by_label);
  };

  std::map<int64_t, std::vector<Sample>> buckets;
  std::string first_error;
  int64_t skipped = 0;
  for (int64_t item = 0; item < data.size(); ++item) {
    if (options.max_batches > 0 && batches >= options.max_batches) break;
    auto& samples = buckets[data.bucket(item)];
    try {
      samples.push_back(data.get(item, options.context.seed, item));
      samples.back().index = item;
    } catch (const Error& error) {
      if (skipped++ == 0) first_error = data.item_name(item) + ": " + error.what();
    }
    if (static_cast<int64_t>(samples.size()) == options.batch_size) flush(samples);
  }
  for (auto& [bucket, samples] : buckets) flush(samples);
  model.train();
  if (skipped > 0)
    report("validation: " + std::to_string(skipped) + " unreadable items, first " + first_error);
  require(count > 0, "validation: none of ", data.size(), " items could be read: ", first_error);

  Json row = {{"val_loss", sum / static_cast<double>(count)}};
  metrics.write(row, "val_");
  recipe.derive_metrics(row, "val_");
  by_label.write(row, "val_by");
  return row;
}

}  // namespace cosmos::trainer
