#include "trainer/data/sample_order.h"

#include <algorithm>
#include <numeric>

#include "modules/core/random.h"

namespace cosmos::trainer {

using modules::Philox;
using modules::Purpose;

SampleOrder::SampleOrder(const Dataset& data, uint64_t seed, int64_t batch_size)
    : seed_(seed), batch_size_(batch_size) {
  require(batch_size > 0, "batch size: expected at least 1, got ", batch_size);
  require(data.size() > 0, "the dataset holds no items");
  std::map<int64_t, std::vector<int64_t>> by_bucket;
  for (int64_t i = 0; i < data.size(); ++i) by_bucket[data.bucket(i)].push_back(i);
  for (auto& [key, items] : by_bucket) {
    const int64_t size = static_cast<int64_t>(items.size());
    buckets_.push_back(
        {.items = std::move(items), .batches = (size + batch_size - 1) / batch_size});
    schedule_size_ += buckets_.back().batches;
  }
}

void SampleOrder::shuffle(std::vector<int64_t>& values, uint64_t stream, int64_t pass) const {
  Philox random(seed_, Purpose::kOrder, static_cast<uint64_t>(pass) << 20 | stream);
  for (std::size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[random.below(i)]);
}

int64_t SampleOrder::item(std::size_t index, int64_t number) {
  Bucket& bucket = buckets_[index];
  const int64_t size = static_cast<int64_t>(bucket.items.size());
  if (number / size != bucket.pass) {
    bucket.pass = number / size;
    bucket.order = bucket.items;
    shuffle(bucket.order, index + 1, bucket.pass);
  }
  return bucket.order[static_cast<std::size_t>(number % size)];
}

std::vector<SampleOrder::Draw> SampleOrder::step(int64_t step) {
  const int64_t epoch = step / schedule_size_;
  if (epoch != epoch_) {
    epoch_ = epoch;
    schedule_.resize(static_cast<std::size_t>(schedule_size_));
    std::iota(schedule_.begin(), schedule_.end(), 0);
    if (buckets_.size() > 1) shuffle(schedule_, 0, epoch);
  }
  int64_t place = schedule_[static_cast<std::size_t>(step % schedule_size_)];
  std::size_t bucket = 0;
  while (place >= buckets_[bucket].batches) place -= buckets_[bucket++].batches;
  const int64_t first = (epoch * buckets_[bucket].batches + place) * batch_size_;
  std::vector<Draw> draws;
  for (int64_t j = 0; j < batch_size_; ++j)
    draws.push_back({.index = step * batch_size_ + j,
                     .item = item(bucket, first + j),
                     .bucket = static_cast<int64_t>(bucket)});
  return draws;
}

int64_t SampleOrder::replacement(const Draw& draw, int64_t attempt) const {
  // Streams of the order proper have the top bit clear.
  Philox random(seed_, Purpose::kOrder, uint64_t{1} << 63 | static_cast<uint64_t>(draw.index));
  const std::vector<int64_t>& items = buckets_[static_cast<std::size_t>(draw.bucket)].items;
  uint64_t place = 0;
  for (int64_t i = 0; i < attempt; ++i) place = random.below(items.size());
  return items[place];
}

}  // namespace cosmos::trainer
