#pragma once

// The files beside the clips.

#include "tools/curate/account.h"
#include "tools/curate/config.h"

namespace cosmos::curate {

/// A clip, under the field names of cosmos-curate's metas/v0 where it has them.
Json clip_json(const Source& source, const Segment& clip);

/// The same with its caption, or why it failed.
Json part_json(Store& store, const Config& config, const Source& source, const Segment& clip);

/// One line; names of files are bytes: what is not UTF-8 in them is replaced.
std::string json_line(const Json& json);

/// Writes metas/{id}.txt (with a caption), clips.jsonl (kept), dropped.jsonl (dropped and failed
/// parts and files, with reasons) and summary.json; removes what is left of clips that are kept no
/// more. They follow from the store alone, in order of listing and time: the same set gives the
/// same bytes.
void publish(Store& store, const Config& config, const Account& account);

}  // namespace cosmos::curate
