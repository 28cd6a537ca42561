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

void draw_grid(std::ostringstream& out, const Axes& a) {
  for (const double tick : y_ticks(a)) {
    const std::string y = fixed(a.y(tick));
    out << "<line class='grid' x1='" << kLeft << "' x2='" << kWidth - kRight << "' y1='" << y
        << "' y2='" << y << "'/><text class='tick' text-anchor='end' x='" << kLeft - 8 << "' y='"
        << fixed(a.y(tick) + 3.5) << "'>" << format_number(tick) << "</text>";
  }
  for (const double tick : nice_ticks(a.x0, a.x1, 6))
    out << "<text class='tick' text-anchor='middle' x='" << fixed(a.x(tick)) << "' y='"
        << kHeight - 10 << "'>" << format_number(tick) << "</text>";
  out << "<line class='axis' x1='" << kLeft << "' x2='" << kWidth - kRight << "' y1='"
      << kHeight - kBottom << "' y2='" << kHeight - kBottom << "'/>";
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
