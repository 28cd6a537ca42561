#include "tools/curate/report.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "modules/hub/atomic_file.h"
#include "trainer/data/media_writer.h"
#include "trainer/data/video_reader.h"
#include "trainer/report/console.h"
#include "trainer/report/page.h"
#include "trainer/report/svg.h"

namespace cosmos::curate {
namespace {

namespace fs = std::filesystem;

/// Reasons in the order in which a second meets them.
constexpr const char* kReasons[] = {"unreadable file",
                                    "duplicate file",
                                    "does not decode",
                                    "transition",
                                    "crop",
                                    "too short",
                                    "black",
                                    "frozen",
                                    "blurred",
                                    "still",
                                    "near duplicate",
                                    "semantic duplicate",
                                    "cannot be embedded",
                                    "cannot be written",
                                    "cannot be captioned"};
constexpr std::size_t kMostKept = 18, kMostOfReason = 6;

/// A part of a video, for the pictures.
struct Shown {
  const Source* source;
  const Segment* clip;
};

/// Everything once: the parts of all analysed videos.
struct Parts {
  explicit Parts(Store& store) : sources(store.sources("analysed")) {
    for (const Source& source : sources) segments.push_back(store.segments(source.id));
    for (std::size_t i = 0; i < sources.size(); ++i)
      for (const Segment& s : segments[i])
        (s.state == State::kKept ? kept : others[s.reason]).push_back({&sources[i], &s});
  }
  std::vector<Source> sources;
  std::vector<std::vector<Segment>> segments;
  std::vector<Shown> kept;
  std::map<std::string, std::vector<Shown>> others;  ///< by reason
};

std::string seconds(int64_t us) {
  return us < 600'000'000
             ? trainer::format_number(std::round(static_cast<double>(us) / 1e4) / 100) + " s"
             : trainer::format_duration(static_cast<double>(us) / 1e6);
}

std::string percent(int64_t part, int64_t whole) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f %%",
                whole ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0);
  return text;
}

std::string count(int64_t n, const std::string& what) {
  return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

std::string cards(const Account& account) {
  Share lost, failed;
  for (const auto& [reason, share] : account.dropped)
    lost.parts += share.parts, lost.us += share.us;
  for (const auto& [reason, share] : account.failed)
    failed.parts += share.parts, failed.us += share.us;
  using trainer::card;
  return "<div class='cards'>" + card(count(account.files, "file"), seconds(account.input_us)) +
         card(count(account.kept.parts, "kept clip"), seconds(account.kept.us)) +
         card("of the input is kept", percent(account.kept.us, account.input_us)) +
         card("dropped, " + count(lost.parts, "part"), seconds(lost.us)) +
         card("failed, " + count(failed.parts, "part"), seconds(failed.us)) + "</div>";
}

/// A row for each reason: what is left after it, and what it took.
std::string funnel(const Account& account) {
  std::map<std::string, Share> taken = account.dropped;
  for (const auto& [reason, share] : account.failed) {
    taken[reason].parts += share.parts;
    taken[reason].us += share.us;
  }
  std::vector<std::string> order(std::begin(kReasons), std::end(kReasons));
  for (const auto& [reason, share] : taken)
    if (std::find(order.begin(), order.end(), reason) == order.end()) order.push_back(reason);
  const auto bar = [&](const char* css, int64_t us) {
    return "<span class='" + std::string(css) + "' style='width:" +
           std::to_string(100.0 * static_cast<double>(us) /
                          static_cast<double>(std::max<int64_t>(account.input_us, 1))) +
           "%'></span>";
  };
  const auto row = [](const std::string& label, const std::string& bars, const std::string& value,
                      const std::string& note) {
    return "<tr><th>" + trainer::escape_html(label) + "</th><td>" + bars +
           "</td><td class='value'>" + value + " <small>" + note + "</small></td></tr>";
  };
  int64_t left = account.input_us;
  std::string html = "<figure><table class='bars funnel'>" +
                     row("input", bar("", left), seconds(left), count(account.files, "file"));
  for (const std::string& reason : order) {
    const auto found = taken.find(reason);
    if (found == taken.end()) continue;
    left -= found->second.us;
    html += row(
        reason, bar("", left) + bar("lost", found->second.us),
        "&minus;" + seconds(found->second.us),
        count(found->second.parts, "part") + ", " + percent(found->second.us, account.input_us));
  }
  return html + row("kept", bar("", left), seconds(left), count(account.kept.parts, "clip")) +
         "</table></figure>";
}

std::string histograms(const Parts& parts, const Config& config) {
  const FilterConfig& f = config.filter;
  struct Score {
    const char *key, *title;
    std::optional<double> limit;
  };
  const auto limit = [](double value, double none) {
    return value == none ? std::nullopt : std::optional(value);
  };
  const std::vector<Score> scores = {
      {"", "Length, s", config.split.min_s},
      {"motion", "Motion", limit(f.min_motion, 0)},
      {"patch_motion", "Motion of the stillest part", limit(f.min_patch_motion, 0)},
      {"sharpness", "Sharpness", limit(f.min_sharpness, 0)},
      {"black", "Black frames, fraction", limit(f.max_black, 1)},
      {"frozen", "Frozen frames, fraction", limit(f.max_frozen, 1)},
      {"text", "Static text, fraction of the picture", limit(f.max_text, 1)},
      {"aesthetic", "Aesthetic score", config.aesthetic.min_score}};
  std::string html;
  for (const Score& score : scores) {
    const auto values = [&](const std::vector<Shown>& clips, std::vector<double>& into) {
      for (const Shown& shown : clips) {
        const Segment& clip = *shown.clip;
        if (*score.key == 0)
          into.push_back(static_cast<double>(clip.end_us - clip.begin_us) / 1e6);
        else if (clip.scores.contains(score.key) && clip.scores[score.key].is_number())
          into.push_back(clip.scores[score.key]);
      }
    };
    trainer::Histogram h{.title = score.title,
                         .groups = {{"kept", "main", {}}, {"dropped", "second", {}}},
                         .limit = score.limit};
    values(parts.kept, h.groups[0].values);
    for (const auto& [reason, clips] : parts.others)
      if (reason != "crop" && reason != "transition") values(clips, h.groups[1].values);
    html += trainer::histogram(h);
  }
  return html;
}

/// First, middle and last frame side by side, or why they cannot be shown.
std::string strip(const Shown& shown) {
  const Segment& clip = *shown.clip;
  const double begin = static_cast<double>(clip.begin_us) / 1e6;
  const double length = static_cast<double>(clip.end_us - clip.begin_us) / 1e6;
  std::string text = fs::path(shown.source->path).filename().string() + ", " +
                     trainer::format_number(begin) + " to " +
                     trainer::format_number(begin + length) + " s";
  for (const char* key : {"motion", "sharpness", "aesthetic"})
    if (clip.scores.contains(key) && clip.scores[key].is_number())
      text += std::string(", ") + key + " " + trainer::format_number(clip.scores[key]);
  try {
    const trainer::VideoInfo info = trainer::probe_video(shown.source->path);
    const auto at = [&](int64_t frame) { return info.times.at(static_cast<std::size_t>(frame)); };
    const double shape = static_cast<double>(info.width) * info.pixel_aspect /
                         static_cast<double>(std::max<int64_t>(info.height, 1));
    const Tensor frames =
        trainer::read_frames_at(shown.source->path, info,
                                {at(clip.first), at((clip.first + clip.end) / 2), at(clip.end - 1)},
                                {.height = 84,
                                 .width = std::clamp<int64_t>(std::llround(84 * shape), 40, 200),
                                 .fit = trainer::Fit::kPad});
    return trainer::picture(trainer::png_bytes(trainer::contact_sheet(frames, 3)), text);
  } catch (const std::exception& error) {  // the file changed or went since
    return "<p><small>" + trainer::escape_html(error.what()) + "</small></p>";
  }
}

/// At most `most` of the clips, evenly spread.
std::string strips(const std::vector<Shown>& clips, std::size_t most) {
  std::string html = "<div class='pictures'>";
  const std::size_t shown = std::min(most, clips.size());
  for (std::size_t i = 0; i < shown; ++i) html += strip(clips[i * clips.size() / shown]);
  return html + "</div>";
}

std::string gallery(const Parts& parts) {
  const auto title = [](const std::string& name, std::size_t shown, std::size_t all) {
    return "<h3>" + trainer::escape_html(name) + " <small>" + std::to_string(std::min(shown, all)) +
           " of " + std::to_string(all) + "</small></h3>";
  };
  std::string html;
  if (!parts.kept.empty())
    html += "<h2>Kept clips</h2>" +
            title("first, middle and last frame", kMostKept, parts.kept.size()) +
            strips(parts.kept, kMostKept);
  std::string others;
  for (const auto& [reason, clips] : parts.others)
    if (reason != "does not decode")
      others += title(reason, kMostOfReason, clips.size()) + strips(clips, kMostOfReason);
  return others.empty() ? html : html + "<h2>Dropped</h2>" + others;
}

}  // namespace

void write_report(Store& store, const Config& config, const Account& account) {
  const Parts parts(store);
  Json settings = modules::write_fields(config);
  settings.erase("store");  // it may hold a password
  const fs::path output = config.output;
  const std::string body = cards(account) + "<h2>Where the seconds went</h2>" + funnel(account) +
                           "<h2>Scores of clips</h2><div class='charts'>" +
                           histograms(parts, config) + "</div>" + gallery(parts) +
                           trainer::details("Settings", settings.dump(2));
  modules::write_file(
      output / "report.html",
      trainer::page(fs::weakly_canonical(output).filename().string(), "curated video", body));
}

}  // namespace cosmos::curate
