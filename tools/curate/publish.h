#pragma once

// The files beside the clips.

#include "tools/curate/account.h"
#include "tools/curate/config.h"

namespace cosmos::curate {

/// Writes metas/{id}.txt (with a caption), clips.jsonl (kept), dropped.jsonl (dropped and failed
/// parts and files, with reasons) and summary.json. They follow from the store alone, in order of
/// listing and time: the same set gives the same bytes.
void publish(Store& store, const Config& config, const Account& account);

}  // namespace cosmos::curate
