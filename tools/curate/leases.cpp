#include "tools/curate/leases.h"

#include <chrono>

namespace cosmos::curate {
namespace {

constexpr std::chrono::milliseconds kPoll{200};

}  // namespace

LeaseKeeper::LeaseKeeper(Store& store, double lease_s) {
  if (!store.shared()) return;
  thread_ = std::thread([this, &store, lease_s] {
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, std::chrono::duration<double>(lease_s / 3),
                              [&] { return stopped_; })) {
      try {
        store.renew();
      } catch (const Error&) {  // the connection is gone: the stages' next word to it says so
        return;
      }
    }
  });
}

LeaseKeeper::~LeaseKeeper() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Store::alone(const std::function<void()>& body) {
  const auto locked = [&] {
    const std::lock_guard lock(mutex_);
    return database_->try_lock();
  };
  while (!locked()) std::this_thread::sleep_for(kPoll);
  body();  // an exception ends the process, and with it the lock
  const std::lock_guard lock(mutex_);
  database_->unlock();
}

void Store::once(const std::string& name, int64_t mine, int64_t covered,
                 const std::function<void()>& body) {
  alone([&] {
    const auto rows = query("SELECT listing FROM progress WHERE name = $1", {name});
    if (!rows.empty() && number(rows[0], 0) >= mine) return;
    body();
    query(
        "INSERT INTO progress VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET listing = "
        "excluded.listing",
        {name, covered});
  });
}

}  // namespace cosmos::curate
