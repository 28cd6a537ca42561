#pragma once

// Datasets by name: {"type": "video", "path": "data/bikes", ...} in a config. Programs that embed
// the trainer add their own with register_dataset before they run a config.

#include <functional>
#include <memory>
#include <string>

#include "modules/core/model.h"
#include "trainer/core/dataset.h"

namespace cosmos::trainer {

/// Opens the dataset that the settings describe; `type` is removed from them, `where` names them in
/// errors.
using DatasetFactory =
    std::function<std::shared_ptr<Dataset>(const Json& config, const std::string& where)>;
/// Reads and checks the settings without opening anything, and returns them with every default
/// filled in (`type` excluded).
using DatasetCheck = std::function<Json(const Json& config, const std::string& where)>;

/// Without a check, check_dataset returns the settings as they are.
void register_dataset(const std::string& type, DatasetFactory factory, DatasetCheck check = {});

/// Throws Error naming the nearest known type. "video", the default, and "multiview" are
/// built in.
std::shared_ptr<Dataset> make_dataset(const Json& config, const std::string& where);
/// For --check: the settings with every default, `type` included; no file is touched.
Json check_dataset(const Json& config, const std::string& where);

}  // namespace cosmos::trainer
