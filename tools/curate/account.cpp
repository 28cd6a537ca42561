#include "tools/curate/account.h"

#include <cstdio>

#include "modules/hub/atomic_file.h"

namespace cosmos::curate {
namespace {

void add(Share& share, int64_t us) {
  ++share.parts;
  share.us += us;
}

void add_segments(Account& account, const Source& source, const std::vector<Segment>& segments) {
  int64_t frame = 0, us = 0;
  for (const Segment& s : segments) {
    require(s.first == frame && s.begin_us == us && s.end_us >= s.begin_us,
            modules::printable(source.path), ": its parts do not tile it at frame ", s.first);
    frame = s.end;
    us = s.end_us;
    const int64_t length = s.end_us - s.begin_us;
    add(s.state == State::kKept      ? account.kept
        : s.state == State::kDropped ? account.dropped[s.reason]
                                     : account.failed[s.reason],
        length);
  }
  require(us == source.duration_us, modules::printable(source.path), ": its parts end at ", us,
          " us, the video at ", source.duration_us, " us (did the file change?)");
}

Json share_json(const Share& share) {
  return {{"parts", share.parts}, {"seconds", static_cast<double>(share.us) / 1e6}};
}

std::string row(const std::string& name, const Share& share, int64_t input_us) {
  char line[160];
  std::snprintf(
      line, sizeof(line), "%-28s %8lld %12.3f s %6.1f %%\n", name.c_str(),
      static_cast<long long>(share.parts), static_cast<double>(share.us) / 1e6,
      input_us ? 100.0 * static_cast<double>(share.us) / static_cast<double>(input_us) : 0.0);
  return line;
}

}  // namespace

Account account(Store& store) {
  Account result;
  int64_t sum = 0;
  for (const Source& source : store.sources()) {
    ++result.files;
    result.input_us += source.duration_us;
    if (source.stage == "analysed") {
      add_segments(result, source, store.segments(source.id));
    } else if (source.stage == "duplicate") {
      add(result.dropped["duplicate file"], source.duration_us);
    } else if (source.stage == "failed") {
      add(result.failed["unreadable file"], source.duration_us);
    } else {
      fail(modules::printable(source.path), ": is still ", source.stage, " at the end of the run");
    }
  }
  sum = result.kept.us;
  for (const auto* shares : {&result.dropped, &result.failed})
    for (const auto& [reason, share] : *shares) sum += share.us;
  require(sum == result.input_us, "kept, dropped and failed are ", sum, " us, the input is ",
          result.input_us, " us");
  return result;
}

Json Account::json() const {
  Json json = {{"files", files},
               {"input_seconds", static_cast<double>(input_us) / 1e6},
               {"kept", share_json(kept)},
               {"dropped", Json::object()},
               {"failed", Json::object()}};
  for (const auto& [reason, share] : dropped) json["dropped"][reason] = share_json(share);
  for (const auto& [reason, share] : failed) json["failed"][reason] = share_json(share);
  return json;
}

std::string Account::table() const {
  std::string text = row("input files", {files, input_us}, input_us);
  for (const auto& [reason, share] : failed) text += row("failed: " + reason, share, input_us);
  for (const auto& [reason, share] : dropped) text += row("dropped: " + reason, share, input_us);
  return text + row("kept clips", kept, input_us);
}

}  // namespace cosmos::curate
