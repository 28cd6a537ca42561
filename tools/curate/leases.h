#pragma once

// How a process that is alive is told from one that was killed.

#include <condition_variable>
#include <mutex>
#include <thread>

#include "tools/curate/store.h"

namespace cosmos::curate {

/// A thread that renews the store's leases three times in `lease_s` for as long as it lives; none
/// where the store is this process's alone.
class LeaseKeeper {
 public:
  LeaseKeeper(Store& store, double lease_s);
  ~LeaseKeeper();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace cosmos::curate
