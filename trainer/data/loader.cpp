#include "trainer/data/loader.h"

#include <algorithm>
#include <chrono>
#include <new>

namespace cosmos::trainer {
namespace {

constexpr int64_t kAttempts = 16;

// Foreign exceptions (c10::Error) carry a stack trace after the first line.
std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

int64_t global_batch(const LoaderOptions& o) {
  require(o.micro_batch_size > 0 && o.micro_batches > 0,
          "loader: expected at least one sample a "
          "micro-batch and one micro-batch a step, got ",
          o.micro_batch_size, " and ", o.micro_batches);
  require(o.world > 0 && o.rank >= 0 && o.rank < o.world, "loader: rank ", o.rank, " of ", o.world);
  return o.micro_batch_size * o.micro_batches * o.world;
}

}  // namespace

std::string describe_failures(const std::vector<Failure>& failures, int64_t items) {
  std::ostringstream text;
  text << failures.size() << " of " << items << " items could not be read: ";
  for (std::size_t i = 0; i < std::min<std::size_t>(failures.size(), 10); ++i) {
    const Failure& f = failures[i];
    const bool named = f.reason.rfind(f.name, 0) == 0;
    text << (i ? "; " : "") << (named ? "" : f.name + ": ") << f.reason;
  }
  if (failures.size() > 10) text << "; and " << failures.size() - 10 << " more";
  return text.str();
}

DataLoader::DataLoader(std::shared_ptr<Dataset> data, const LoaderOptions& options)
    : data_(std::move(data)),
      options_(options),
      order_(*data_, options.seed, global_batch(options)) {
  for (const auto& [name, reason] : data_->left_out())
    failures_.push_back({.item = -1, .name = name, .reason = reason});
  for (int64_t i = 0; i < options_.workers; ++i) threads_.emplace_back([this] { work(); });
}

DataLoader::~DataLoader() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  work_ready_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::shared_ptr<DataLoader::Slot> DataLoader::make_slot(int64_t step) {
  auto slot = std::make_shared<Slot>();
  slot->step = step;
  const std::vector<SampleOrder::Draw> all = order_.step(step);
  const int64_t share = options_.micro_batch_size * options_.micro_batches;
  slot->draws.assign(all.begin() + options_.rank * share,
                     all.begin() + (options_.rank + 1) * share);
  slot->loaded.resize(slot->draws.size());
  return slot;
}

DataLoader::Loaded DataLoader::load(const SampleOrder::Draw& draw) const {
  Loaded loaded;
  try {
    for (int64_t attempt = 0; attempt < kAttempts; ++attempt) {
      const int64_t item = attempt == 0 ? draw.item : order_.replacement(draw, attempt);
      try {
        loaded.sample = data_->get(item, options_.seed, draw.index);
        loaded.sample.index = draw.index;
        return loaded;
      } catch (const std::bad_alloc&) {
        throw;
      } catch (const std::exception& error) {
        loaded.failures.push_back({item, data_->item_name(item), first_line(error.what())});
      }
    }
    const Failure& last = loaded.failures.back();
    fail("no readable item among ", kAttempts, " drawn; the last: ", last.name, ": ", last.reason);
  } catch (...) {
    loaded.fatal = std::current_exception();
  }
  return loaded;
}

void DataLoader::work() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    std::shared_ptr<Slot> slot;
    for (const auto& candidate : slots_)
      if (candidate->taken < candidate->draws.size()) {
        slot = candidate;
        break;
      }
    if (!slot && !slots_.empty() &&
        static_cast<int64_t>(slots_.size()) <= std::max<int64_t>(options_.prefetch, 0)) {
      slot = make_slot(slots_.back()->step + 1);
      slots_.push_back(slot);
    }
    if (!slot) {
      work_ready_.wait(lock);
      continue;
    }
    const std::size_t place = slot->taken++;
    lock.unlock();
    Loaded loaded = load(slot->draws[place]);
    lock.lock();
    slot->loaded[place] = std::move(loaded);
    if (++slot->done == slot->draws.size()) slot_ready_.notify_all();
  }
}

std::vector<Batch> DataLoader::next(int64_t step) {
  const auto began = std::chrono::steady_clock::now();
  std::shared_ptr<Slot> slot;
  if (threads_.empty()) {
    slot = make_slot(step);
    for (std::size_t i = 0; i < slot->draws.size(); ++i) slot->loaded[i] = load(slot->draws[i]);
  } else {
    std::unique_lock lock(mutex_);
    if (slots_.empty() || slots_.front()->step != step) {
      slots_.clear();  // workers keep what they are reading alive until they are done with it
      slots_.push_back(make_slot(step));
    }
    slot = slots_.front();
    work_ready_.notify_all();
    slot_ready_.wait(lock, [&] { return slot->done == slot->draws.size(); });
    // The next step takes its place, so that reading ahead goes on while this one is used.
    slots_.pop_front();
    if (slots_.empty()) slots_.push_back(make_slot(step + 1));
    work_ready_.notify_all();
  }
  last_wait_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  total_wait_ += last_wait_;
  return deliver(*slot);
}

std::vector<Batch> DataLoader::deliver(Slot& slot) {
  // Failures are counted in order of delivery: which worker met them first plays no part.
  for (Loaded& loaded : slot.loaded) {
    for (Failure& failure : loaded.failures) {
      const auto same = [&](const Failure& known) { return known.item == failure.item; };
      if (std::none_of(failures_.begin(), failures_.end(), same))
        failures_.push_back(std::move(failure));
    }
    const int64_t left_out = std::count_if(failures_.begin(), failures_.end(),
                                           [](const Failure& f) { return f.item < 0; });
    const int64_t failed = static_cast<int64_t>(failures_.size()) - left_out;
    require(failed <= options_.max_failed_fraction * static_cast<double>(data_->size()),
            describe_failures(failures_, data_->size() + left_out), " (max_failed_fraction is ",
            options_.max_failed_fraction, ")");
    if (loaded.fatal) std::rethrow_exception(loaded.fatal);
  }
  std::vector<Batch> batches;
  auto loaded = slot.loaded.begin();
  for (int64_t m = 0; m < options_.micro_batches; ++m) {
    std::vector<Sample> samples;
    for (int64_t i = 0; i < options_.micro_batch_size; ++i, ++loaded)
      samples.push_back(std::move(loaded->sample));
    batches.push_back(collate(samples));
  }
  return batches;
}

}  // namespace cosmos::trainer
