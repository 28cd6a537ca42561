#include "trainer/report/report.h"

#include <algorithm>
#include <fstream>
#include <map>

#include "modules/hub/atomic_file.h"
#include "modules/hub/json_file.h"
#include "ops/core/error.h"
#include "trainer/report/console.h"
#include "trainer/report/page.h"
#include "trainer/report/svg.h"

namespace cosmos::trainer {
namespace fs = std::filesystem;
namespace {

using Points = std::vector<std::pair<double, double>>;

std::vector<Json> read_metrics(const fs::path& file) {
  std::ifstream in(file);
  require(in.good(), file.string(), ": no such file; is this a run folder?");
  std::vector<Json> rows;
  for (std::string line; std::getline(in, line);) {
    Json row = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (row.is_object() && row.contains("step")) rows.push_back(std::move(row));
  }
  return rows;
}

Points curve(const std::vector<Json>& rows, const std::string& key) {
  Points points;
  for (const Json& row : rows)
    if (auto found = row.find(key); found != row.end() && found->is_number())
      points.emplace_back(row["step"].get<double>(), found->get<double>());
  return points;
}

// Exponential average over about a thirtieth of the run, corrected for its start.
Points smooth(const Points& points) {
  const double keep = 1 - 1 / std::max(static_cast<double>(points.size()) / 30, 1.0);
  double sum = 0, weight = 0;
  Points out;
  for (const auto& [x, y] : points) {
    sum = keep * sum + (1 - keep) * y;
    weight = keep * weight + (1 - keep);
    out.emplace_back(x, sum / weight);
  }
  return out;
}

std::string curves(const std::vector<Json>& rows) {
  const Points loss = curve(rows, "loss");
  std::string html;
  html += line_chart({.title = "Training loss",
                      .series = {{"each step", "raw", loss}, {"average", "main", smooth(loss)}}});
  html += line_chart(
      {.title = "Validation loss", .series = {{"validation", "second", curve(rows, "val_loss")}}});
  const Points norm = curve(rows, "grad_norm");
  html += line_chart({.title = "Gradient norm before clipping",
                      .series = {{"each step", "raw", norm}, {"average", "main", smooth(norm)}}});
  html += line_chart({.title = "Learning rate",
                      .series = {{"lr", "main", curve(rows, "lr")}},
                      .zero_based = true});
  html +=
      line_chart({.title = "Seconds per step",
                  .series = {{"step", "main", curve(rows, "step_time_s")},
                             {"of which waiting for data", "second", curve(rows, "data_time_s")}},
                  .zero_based = true});
  // Whatever else the recipe reports.
  static const std::vector<std::string> kShown = {
      "step",         "loss",          "val_loss",     "grad_norm",    "lr",  "step_time_s",
      "data_time_s",  "samples_per_s", "tokens_per_s", "tflops_per_s", "mfu", "peak_memory_bytes",
      "skipped_items"};
  std::map<std::string, int64_t> others;
  for (const Json& row : rows)
    for (const auto& [key, value] : row.items())
      if (value.is_number() && std::find(kShown.begin(), kShown.end(), key) == kShown.end())
        ++others[key];
  for (const auto& [key, count] : others) {
    const Points points = curve(rows, key);
    if (count > 1)
      html += line_chart(
          {.title = key,
           .series = {{"each step", "raw", points}, {"average", "main", smooth(points)}}});
  }
  return html;
}

// Bars by label ("sigma/0.2-0.4"), one chart for each group before the slash, means over the last
// fifth of the rows that have them.
std::string label_charts(const std::vector<Json>& rows, const std::string& key,
                         const std::string& what) {
  std::vector<const Json*> with;
  for (const Json& row : rows)
    if (auto found = row.find(key); found != row.end() && found->is_object())
      with.push_back(&*found);
  const std::size_t recent = with.size() - with.size() / 5;
  std::map<std::string, std::map<std::string, std::pair<double, double>>> groups;
  for (std::size_t i = std::min(recent, with.empty() ? 0 : with.size() - 1); i < with.size(); ++i) {
    for (const auto& [label, entry] : with[i]->items()) {
      const std::size_t slash = label.find('/');
      auto& [sum, n] = groups[slash == std::string::npos ? "" : label.substr(0, slash)]
                             [slash == std::string::npos ? label : label.substr(slash + 1)];
      sum += entry.at("mean").get<double>() * entry.at("n").get<double>();
      n += entry.at("n").get<double>();
    }
  }
  std::string html;
  for (const auto& [group, labels] : groups) {
    std::vector<Bar> bars;
    for (const auto& [label, sum] : labels)
      bars.push_back({label, sum.first / sum.second, "n = " + format_number(sum.second)});
    html += bar_chart(what + (group.empty() ? " by label" : " by " + group), bars);
  }
  return html;
}

// The newest samples in full; of the earlier ones, a picture each, as a history.
std::string samples(const std::vector<Json>& rows, const fs::path& run_dir) {
  constexpr uint64_t kMaxBytes = 8u << 20;
  constexpr std::size_t kMaxSteps = 6;
  std::string html;
  std::size_t steps = 0;
  for (auto row = rows.rbegin(); row != rows.rend() && steps < kMaxSteps; ++row) {
    const Json files = row->value("samples", Json::array());
    std::string pictures;
    for (const Json& file : files) {
      const fs::path path = run_dir / file.get<std::string>();
      if (path.extension() != ".png" || !fs::exists(path)) continue;
      pictures += picture(modules::read_file(path, kMaxBytes), path.stem().string());
    }
    if (pictures.empty()) continue;
    ++steps;
    html += "<h3>After step " + (*row)["step"].dump() + "</h3><div class='pictures'>" + pictures +
            "</div>";
  }
  return html.empty() ? "" : "<h2>Samples</h2>" + html;
}

std::string cards(const std::vector<Json>& rows, const Json& config) {
  const Json& last = rows.back();
  double seconds = 0, rate = 0;
  for (const Json& row : rows) seconds += row.value("step_time_s", 0.0);
  const std::size_t recent = std::min<std::size_t>(rows.size(), 50);
  for (std::size_t i = rows.size() - recent; i < rows.size(); ++i)
    rate += rows[i].value("samples_per_s", 0.0) / static_cast<double>(recent);
  const Points loss = smooth(curve(rows, "loss")), validation = curve(rows, "val_loss");
  const Json steps = config.value("/trainer/steps"_json_pointer, Json(last["step"]));
  std::string html = "<div class='cards'>";
  html += card("steps", last["step"].dump() + " / " + steps.dump());
  if (!loss.empty()) html += card("training loss", format_number(loss.back().second));
  if (!validation.empty()) html += card("validation loss", format_number(validation.back().second));
  html += card("time in steps", format_duration(seconds));
  html += card("samples / s", format_number(rate));
  html += card("peak memory", format_bytes(last.value("peak_memory_bytes", 0.0)));
  return html + "</div>";
}

std::string log_tail(const fs::path& file) {
  std::ifstream in(file);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  std::string text;
  for (std::size_t i = lines.size() > 40 ? lines.size() - 40 : 0; i < lines.size(); ++i)
    text += lines[i] + "\n";
  return details("Log", text);
}

}  // namespace

void write_report(const fs::path& run_dir, const Facts& facts) {
  const std::vector<Json> rows = read_metrics(run_dir / "metrics.jsonl");
  require(!rows.empty(), (run_dir / "metrics.jsonl").string(), ": has no steps yet");
  const Json config = modules::read_json(run_dir / "config.json");
  const std::string name = fs::weakly_canonical(run_dir).filename().string();
  const std::string type = config.value("/recipe/type"_json_pointer, std::string("run"));
  const std::string bars =
      label_charts(rows, "by", "Training loss") + label_charts(rows, "val_by", "Validation loss");
  const std::string body =
      cards(rows, config) + samples(rows, run_dir) + "<h2>Curves</h2><div class='charts'>" +
      curves(rows) + "</div>" +
      (bars.empty() ? "" : "<h2>Where the loss is</h2><div class='charts'>" + bars + "</div>") +
      fact_table("Run", facts) + details("Settings", config.dump(2)) +
      log_tail(run_dir / "log.txt");
  modules::write_file(run_dir / "report.html", page(name, type, body));
}

}  // namespace cosmos::trainer
