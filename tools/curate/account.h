#pragma once

// Where every second of input ended.

#include <map>
#include <string>

#include "tools/curate/store.h"

namespace cosmos::curate {

struct Share {
  int64_t parts = 0;  ///< clips, or files that were not cut
  int64_t us = 0;     ///< microseconds
};

struct Account {
  int64_t files = 0, input_us = 0;
  Share kept;
  std::map<std::string, Share> dropped, failed;  ///< by reason

  Json json() const;
  /// A table for people.
  std::string table() const;
};

/// Adds up the store and checks it: the parts of every video tile it, and kept + dropped + failed
/// are the input to the microsecond. Throws Error naming the video where they are not. Files that
/// do not open have no known length and count as 0 s.
Account account(Store& store);

}  // namespace cosmos::curate
