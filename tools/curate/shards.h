#pragma once

// The kept clips as WebDataset shards.

#include "tools/curate/config.h"
#include "tools/curate/store.h"

namespace cosmos::curate {

/// Writes webdataset/ in cosmos-curate's layout, `clips` a shard:
///
///   resolution_{720,1080,lt_720}/aspect_ratio_{16_9,4_3,1_1,3_4,9_16}/duration_{...}/
///     video/part_000000/000000.tar    {id}.mp4 ...
///     metas/part_000000/000000.tar    {id}.json, with a caption {id}.txt too
///     latents/..., text_embeds/...    {id}.latents.safetensors, {id}.text_embeds.safetensors,
///     where
///                                     they are computed (encode.h)
///     wdinfo.json                     which shards there are, how many samples
///   wdinfo_list.csv                   the wdinfo.json files, one a line
///
/// A part holds 1000 shards. Clips below 5 s, which the original leaves out, are in duration_0_5.
/// The shards follow from the store alone: the same set gives the same bytes, a stopped run goes on
/// with what is missing, and shards that the set no longer has are removed. 0 clips: nothing.
void write_shards(Store& store, const Config& config);

/// resolution_.../aspect_ratio_.../duration_... of a clip.
std::string shard_bin(int64_t height, int64_t width, int64_t length_us);

}  // namespace cosmos::curate
