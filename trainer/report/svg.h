#pragma once

// Line and bar charts and histograms as inline SVG; colours come from the page's style sheet.

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace cosmos::trainer {

struct Series {
  std::string name;
  std::string css;  ///< class of the line: "raw", "main", "second"
  std::vector<std::pair<double, double>> points;
};

struct Chart {
  std::string title;
  std::vector<Series> series;
  bool zero_based = false;  ///< the y axis starts at 0
};

/// A figure with axes, ticks and a legend. The y axis is logarithmic where the values are positive
/// and span more than two decades. Long series are thinned to what can be seen. Points that are not
/// finite are left out. Empty when there is nothing to draw.
std::string line_chart(const Chart& chart);

struct Bar {
  std::string label;
  double value;
  std::string note;  ///< printed behind the value
};

/// Horizontal bars on a common scale that starts at 0.
std::string bar_chart(const std::string& title, const std::vector<Bar>& bars);

struct ValueGroup {
  std::string name;
  std::string css;  ///< class of the columns: "main", "second"
  std::vector<double> values;
};

struct Histogram {
  std::string title;
  std::vector<ValueGroup> groups;
  std::optional<double> limit = std::nullopt;  ///< a line with its value
};

/// How many values lie where, groups on top of each other. The x axis is logarithmic where the
/// values are positive and span more than two decades. Values that are not finite are left out.
/// Empty when there is nothing to draw.
std::string histogram(const Histogram& histogram);

/// Text fit for HTML.
std::string escape_html(const std::string& text);

/// Round numbers that cover [low, high] in about `count` steps.
std::vector<double> nice_ticks(double low, double high, int count);

}  // namespace cosmos::trainer
