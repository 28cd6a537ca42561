#include "trainer/report/svg.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <sstream>

#include "trainer/report/console.h"

namespace cosmos::trainer {
namespace {

constexpr double kWidth = 560, kHeight = 250;
constexpr double kLeft = 58, kRight = 14, kTop = 12, kBottom = 30;

std::string fixed(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", value);
  return text;
}

using Points = std::vector<std::pair<double, double>>;

Points finite_points(const Points& points) {
  Points kept;
  for (const auto& p : points)
    if (std::isfinite(p.second)) kept.push_back(p);
  return kept;
}

// Keeps the lowest and highest point of every few, so that spikes stay visible.
Points thin(const Points& points) {
  constexpr std::size_t kColumns = 400;
  if (points.size() <= 2 * kColumns) return points;
  Points kept;
  for (std::size_t c = 0; c < kColumns; ++c) {
    const auto begin = points.begin() + static_cast<long>(c * points.size() / kColumns);
    const auto end = points.begin() + static_cast<long>((c + 1) * points.size() / kColumns);
    auto [low, high] = std::minmax_element(
        begin, end, [](const auto& a, const auto& b) { return a.second < b.second; });
    if (low > high) std::swap(low, high);
    kept.push_back(*low);
    if (high != low) kept.push_back(*high);
  }
  return kept;
}

// Maps data to pixels.
struct Axes {
  double x0, x1, y0, y1;
  bool log_y;
  double x(double v) const { return kLeft + (v - x0) / (x1 - x0) * (kWidth - kLeft - kRight); }
  double y(double v) const {
    const double t = log_y ? (std::log10(v) - std::log10(y0)) / (std::log10(y1) - std::log10(y0))
                           : (v - y0) / (y1 - y0);
    return kHeight - kBottom - t * (kHeight - kTop - kBottom);
  }
};

Axes fit_axes(const std::vector<Series>& series, bool zero_based) {
  Axes a{1e300, -1e300, 1e300, -1e300, false};
  for (const Series& s : series) {
    for (const auto& [x, y] : s.points) {
      a.x0 = std::min(a.x0, x), a.x1 = std::max(a.x1, x);
      a.y0 = std::min(a.y0, y), a.y1 = std::max(a.y1, y);
    }
  }
  a.log_y = !zero_based && a.y0 > 0 && a.y1 / a.y0 > 100;
  if (zero_based) a.y0 = std::min(a.y0, 0.0);
  if (a.x1 <= a.x0) a.x0 -= 0.5, a.x1 += 0.5;
  const double margin = a.y1 > a.y0 ? 0.05 * (a.y1 - a.y0) : std::max(std::abs(a.y1) * 0.1, 1e-9);
  if (a.log_y) {
    a.y0 /= 1.2, a.y1 *= 1.2;
  } else {
    if (!zero_based || a.y0 < 0 || a.y1 <= 0) a.y0 -= margin;
    a.y1 += margin;
  }
  return a;
}

std::vector<double> y_ticks(const Axes& a) {
  if (!a.log_y) return nice_ticks(a.y0, a.y1, 4);
  std::vector<double> ticks;
  for (double e = std::ceil(std::log10(a.y0)); e <= std::log10(a.y1); ++e)
    ticks.push_back(std::pow(10, e));
  return ticks;
}

void draw_y_ticks(std::ostringstream& out, const Axes& a) {
  for (const double tick : y_ticks(a)) {
    const std::string y = fixed(a.y(tick));
    out << "<line class='grid' x1='" << kLeft << "' x2='" << kWidth - kRight << "' y1='" << y
        << "' y2='" << y << "'/><text class='tick' text-anchor='end' x='" << kLeft - 8 << "' y='"
        << fixed(a.y(tick) + 3.5) << "'>" << format_number(tick) << "</text>";
  }
  out << "<line class='axis' x1='" << kLeft << "' x2='" << kWidth - kRight << "' y1='"
      << kHeight - kBottom << "' y2='" << kHeight - kBottom << "'/>";
}

void draw_grid(std::ostringstream& out, const Axes& a) {
  draw_y_ticks(out, a);
  for (const double tick : nice_ticks(a.x0, a.x1, 6))
    out << "<text class='tick' text-anchor='middle' x='" << fixed(a.x(tick)) << "' y='"
        << kHeight - 10 << "'>" << format_number(tick) << "</text>";
}

}  // namespace

std::string escape_html(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::vector<double> nice_ticks(double low, double high, int count) {
  const double raw = (high - low) / count;
  if (!(raw > 0) || !std::isfinite(raw)) return {};
  const double power = std::pow(10, std::floor(std::log10(raw)));
  const double fraction = raw / power;
  const double step = power * (fraction < 1.5 ? 1 : fraction < 3.5 ? 2 : fraction < 7.5 ? 5 : 10);
  std::vector<double> ticks;
  for (double i = std::ceil(low / step); i * step <= high * (1 + 1e-12) && ticks.size() < 50; ++i)
    ticks.push_back(i * step + 0.0);  // + 0.0: no "-0"
  return ticks;
}

std::string line_chart(const Chart& chart) {
  std::vector<Series> series;
  for (Series s : chart.series) {
    s.points = thin(finite_points(s.points));
    if (!s.points.empty()) series.push_back(std::move(s));
  }
  if (series.empty()) return "";
  const Axes axes = fit_axes(series, chart.zero_based);
  std::ostringstream out;
  out << "<figure><figcaption>" << escape_html(chart.title) << (axes.log_y ? " <i>(log)</i>" : "");
  if (series.size() > 1)
    for (const Series& s : series)
      out << " <span class='key " << s.css << "'></span><small>" << escape_html(s.name)
          << "</small>";
  out << "</figcaption><svg viewBox='0 0 " << kWidth << ' ' << kHeight << "'>";
  draw_grid(out, axes);
  for (const Series& s : series) {
    out << "<polyline class='" << s.css << "' points='";
    for (const auto& [x, y] : s.points) out << fixed(axes.x(x)) << ',' << fixed(axes.y(y)) << ' ';
    out << "'/>";
    const auto& [x, y] = s.points.back();
    if (s.css != "raw")
      out << "<circle class='" << s.css << "' r='3' cx='" << fixed(axes.x(x)) << "' cy='"
          << fixed(axes.y(y)) << "'><title>" << format_number(x) << ": " << format_number(y)
          << "</title></circle>";
  }
  out << "</svg></figure>\n";
  return out.str();
}

namespace {

/// Columns of equal width between the lowest and the highest value.
struct Columns {
  static constexpr int kCount = 32;
  double low = 1e300, high = -1e300;
  bool log = false;

  explicit Columns(const Histogram& h) {
    const auto widen = [&](double v) { low = std::min(low, v), high = std::max(high, v); };
    for (const ValueGroup& group : h.groups)
      for (const double v : group.values)
        if (std::isfinite(v)) widen(v);
    if (low > high) return;
    if (h.limit) widen(*h.limit);
    log = low > 0 && high / low > 100;
    low = place(low), high = place(high);
    if (high <= low) low -= 0.5, high += 0.5;
  }
  bool empty() const { return low > high; }
  double place(double v) const { return log ? std::log10(v) : v; }
  int column(double v) const {
    return std::clamp(static_cast<int>((place(v) - low) / (high - low) * kCount), 0, kCount - 1);
  }
  double edge(int column) const { return low + (high - low) * column / kCount; }
};

void draw_ticks(std::ostringstream& out, const Columns& columns, const Axes& axes) {
  std::vector<double> ticks;
  if (columns.log) {
    for (double e = std::ceil(columns.low); e <= columns.high; ++e) ticks.push_back(e);
  } else {
    ticks = nice_ticks(columns.low, columns.high, 6);
  }
  for (const double tick : ticks)
    out << "<text class='tick' text-anchor='middle' x='" << fixed(axes.x(tick)) << "' y='"
        << kHeight - 10 << "'>" << format_number(columns.log ? std::pow(10, tick) : tick)
        << "</text>";
}

}  // namespace

std::string histogram(const Histogram& h) {
  const Columns columns(h);
  if (columns.empty()) return "";
  std::vector<std::vector<int>> counts;
  std::vector<int> sums(Columns::kCount);
  for (const ValueGroup& group : h.groups) {
    counts.emplace_back(Columns::kCount);
    for (const double v : group.values)
      if (std::isfinite(v)) ++counts.back()[columns.column(v)], ++sums[columns.column(v)];
  }
  const double tallest = *std::max_element(sums.begin(), sums.end());
  const Axes axes{columns.low, columns.high, 0, tallest * 1.05, false};
  std::ostringstream out;
  out << "<figure><figcaption>" << escape_html(h.title) << (columns.log ? " <i>(log)</i>" : "");
  for (const ValueGroup& group : h.groups)
    out << " <span class='key " << group.css << "'></span><small>" << escape_html(group.name)
        << "</small>";
  out << "</figcaption><svg viewBox='0 0 " << kWidth << ' ' << kHeight << "'>";
  draw_y_ticks(out, axes);
  draw_ticks(out, columns, axes);
  std::vector<int> below(Columns::kCount);
  for (std::size_t g = 0; g < h.groups.size(); ++g)
    for (int c = 0; c < Columns::kCount; ++c) {
      const int from = below[c], to = below[c] += counts[g][c];
      if (to == from) continue;
      out << "<rect class='" << h.groups[g].css << "' x='" << fixed(axes.x(columns.edge(c)) + 0.5)
          << "' width='" << fixed(axes.x(columns.edge(c + 1)) - axes.x(columns.edge(c)) - 1)
          << "' y='" << fixed(axes.y(to)) << "' height='" << fixed(axes.y(from) - axes.y(to))
          << "'><title>" << to - from << "</title></rect>";
    }
  if (h.limit) {
    const std::string x = fixed(axes.x(columns.place(*h.limit)));
    out << "<line class='limit' x1='" << x << "' x2='" << x << "' y1='" << kTop << "' y2='"
        << kHeight - kBottom << "'><title>limit " << format_number(*h.limit) << "</title></line>";
  }
  out << "</svg></figure>\n";
  return out.str();
}

std::string bar_chart(const std::string& title, const std::vector<Bar>& bars) {
  if (bars.empty()) return "";
  double largest = 0;
  for (const Bar& bar : bars)
    if (std::isfinite(bar.value)) largest = std::max(largest, bar.value);
  std::ostringstream out;
  out << "<figure><figcaption>" << escape_html(title) << "</figcaption><table class='bars'>";
  for (const Bar& bar : bars) {
    const double percent = largest > 0 && std::isfinite(bar.value) ? 100 * bar.value / largest : 0;
    out << "<tr><th>" << escape_html(bar.label)
        << "</th><td><span style='width:" << fixed(std::max(percent, 0.0))
        << "%'></span></td><td class='value'>" << format_number(bar.value) << " <small>"
        << escape_html(bar.note) << "</small></td></tr>";
  }
  out << "</table></figure>\n";
  return out.str();
}

}  // namespace cosmos::trainer
