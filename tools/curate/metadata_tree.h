#pragma once

// cosmos-curate's own folder.

#include "tools/curate/account.h"
#include "tools/curate/config.h"

namespace cosmos::curate {

/// Writes cosmos_curate/ with the names and fields of cosmos-curate's split pipeline:
///
///   clips/{id}.mp4                      links to ../videos (copies where links cannot be)
///   metas/v0/{id}.json                  a kept or filtered clip
///   processed_videos/{sha256}.json      a video that was analysed, with its clips
///   video_errors/{sha256 or number}.json
///   summary.json
///
/// Follows from the store alone. Nothing where `outputs.cosmos_curate` is off.
void write_metadata_tree(Store& store, const Config& config, const Account& account);

}  // namespace cosmos::curate
