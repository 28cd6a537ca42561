#pragma once

// A benchmark's page under docs/benchmarks/: what was run, where and when, and a table. And the
// same rows as JSON beside it, for programs.

#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ops/core/error.h"

namespace cosmos::tools {

class Page {
 public:
  /// `command`: what makes this page. `about`: a paragraph before the table.
  Page(std::string title, std::string command, std::string about, int threads)
      : title_(std::move(title)), command_(std::move(command)), about_(std::move(about)) {
    facts_ = {{"date", today()},
              {"cpu", cpu_name()},
              {"threads", threads},
              {"load_average_before", load_average()}};
  }

  void set_columns(std::vector<std::string> columns) { columns_ = std::move(columns); }
  void add(std::vector<std::string> cells, nlohmann::json row) {
    cells_.push_back(std::move(cells));
    rows_.push_back(std::move(row));
  }

  /// Writes PATH.md and PATH.json. Throws Error when it cannot.
  void write(const std::string& path) const {
    std::ofstream md(path + ".md"), json(path + ".json");
    md << "# " << title_ << "\n\nMade by `" << command_ << "`; do not edit. " << about_ << "\n\n"
       << facts_.at("date").get<std::string>() << ", " << facts_.at("cpu").get<std::string>()
       << ", " << facts_.at("threads")
       << " threads, load average before: " << facts_.at("load_average_before") << ".\n\n";
    write_row(md, columns_);
    write_row(md, std::vector<std::string>(columns_.size(), "---"));
    for (const auto& cells : cells_) write_row(md, cells);
    nlohmann::json all = facts_;
    all["command"] = command_;
    all["rows"] = rows_;
    json << all.dump(1) << '\n';
    require(md.good() && json.good(), path, ".md, .json: cannot be written");
  }

 private:
  static void write_row(std::ostream& out, const std::vector<std::string>& cells) {
    out << '|';
    for (const std::string& cell : cells) out << ' ' << cell << " |";
    out << '\n';
  }

  static std::string today() {
    const std::time_t now = std::time(nullptr);
    char text[16];
    std::strftime(text, sizeof text, "%F", std::localtime(&now));
    return text;
  }

  static std::string cpu_name() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);)
      if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
    return "unknown CPU";
  }

  static double load_average() {
    double load = 0;
    std::ifstream("/proc/loadavg") >> load;
    return load;
  }

  std::string title_, command_, about_;
  nlohmann::json facts_, rows_ = nlohmann::json::array();
  std::vector<std::string> columns_;
  std::vector<std::vector<std::string>> cells_;
};

/// printf into a string.
template <typename... Args>
std::string format(const char* pattern, Args... args) {
  char text[256];
  std::snprintf(text, sizeof text, pattern, args...);
  return text;
}

}  // namespace cosmos::tools
