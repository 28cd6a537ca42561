#include "trainer/report/console.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace cosmos::trainer {
namespace {

std::string print(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

}  // namespace

std::string format_duration(double seconds) {
  if (!(seconds >= 0)) return "?";
  const auto s = static_cast<long long>(std::llround(seconds));
  char text[32];
  if (s >= 3600) {
    std::snprintf(text, sizeof(text), "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
  } else {
    std::snprintf(text, sizeof(text), "%lld:%02lld", s / 60, s % 60);
  }
  return text;
}

std::string format_bytes(double bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  std::size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < std::size(units); ++unit) bytes /= 1024;
  return print(unit == 0 ? "%.0f " : "%.1f ", bytes) + units[unit];
}

std::string format_count(int64_t count) {
  const auto n = static_cast<double>(count);
  if (n >= 1e9) return print("%.2f B", n * 1e-9);
  if (n >= 1e6) return print("%.2f M", n * 1e-6);
  if (n >= 1e3) return print("%.1f k", n * 1e-3);
  return std::to_string(count);
}

std::string format_number(double value) {
  return print("%.4g", value);
}

void Console::clear() {
  if (bar_shown_) out_ << "\r\033[K" << std::flush;
  bar_shown_ = false;
}

void Console::line(const std::string& text) {
  clear();
  out_ << text << '\n' << std::flush;
}

void Console::progress(const Progress& p, bool due) {
  const std::string count = std::to_string(p.done) + "/" + std::to_string(p.total);
  const std::string left = "  " + format_duration(p.seconds_left) + " left";
  if (!terminal_) {
    if (due) line(p.what + " " + count + "  " + p.details + left);
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (p.done < p.total && now - last_draw_ < std::chrono::milliseconds(100)) return;
  last_draw_ = now;
  constexpr int64_t kWidth = 24;
  const int64_t filled =
      p.total > 0 ? std::clamp(kWidth * p.done / p.total, int64_t{0}, kWidth) : 0;
  std::string bar;
  for (int64_t i = 0; i < kWidth; ++i) bar += i < filled ? "█" : "░";
  out_ << "\r\033[K" << p.what << ' ' << count << ' ' << bar << "  " << p.details << left
       << std::flush;
  bar_shown_ = true;
}

}  // namespace cosmos::trainer
