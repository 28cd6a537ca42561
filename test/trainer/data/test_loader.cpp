// Order of samples, reading ahead, failures: batches depend on seed and step alone.
#include <catch2/catch.hpp>
#include <chrono>
#include <set>
#include <thread>

#include "modules/core/random.h"
#include "trainer/data/cached_dataset.h"
#include "trainer/data/loader.h"

using namespace cosmos;
using namespace cosmos::trainer;

namespace {

// Items in two buckets of different shapes; some of them unreadable.
class Numbers : public Dataset {
 public:
  explicit Numbers(int64_t size, std::set<int64_t> bad = {}) : size_(size), bad_(std::move(bad)) {}
  int64_t size() const override { return size_; }
  int64_t bucket(int64_t item) const override { return item % 3 == 0; }
  std::string item_name(int64_t item) const override { return "n" + std::to_string(item); }
  Sample get(int64_t item, uint64_t seed, int64_t index) override {
    ++reads;
    // Reading takes a while that differs from call to call, so that workers overtake one another.
    std::this_thread::sleep_for(std::chrono::microseconds((index * 7919) % 300));
    if (bad_.count(item)) fail("is broken");
    modules::Philox random(seed, modules::Purpose::kWindow, static_cast<uint64_t>(index));
    Sample sample;
    sample.tensors["x"] =
        torch::full({bucket(item) + 1}, static_cast<double>(item), torch::kFloat64);
    sample.tensors["draw"] = torch::tensor(random.uniform(), torch::kFloat64);
    sample.text["name"] = item_name(item);
    return sample;
  }
  std::atomic<int> reads{0};

 private:
  int64_t size_;
  std::set<int64_t> bad_;
};

// Everything about a few steps, as text.
std::string trace(DataLoader& loader, int64_t from, int64_t to) {
  std::ostringstream text;
  for (int64_t step = from; step < to; ++step)
    for (const Batch& batch : loader.next(step))
      for (std::size_t i = 0; i < batch.indices.size(); ++i)
        text << step << ":" << batch.indices[i] << ":" << batch.text.at("name")[i] << ":"
             << batch.tensors.at("draw")[static_cast<int64_t>(i)].item<double>() << " ";
  return text.str();
}

}  // namespace

TEST_CASE("batches depend on neither workers, reading ahead nor where the run resumed",
          "[loader]") {
  auto data = std::make_shared<Numbers>(20, std::set<int64_t>{4, 9});
  LoaderOptions options{.micro_batch_size = 3, .micro_batches = 2, .seed = 5, .workers = 0};
  DataLoader plain(data, options);
  const std::string whole = trace(plain, 0, 14);
  CHECK(plain.failures().size() == 2);
  for (const int64_t workers : {1, 4}) {
    for (const int64_t prefetch : {0, 3}) {
      options.workers = workers;
      options.prefetch = prefetch;
      DataLoader loader(data, options);
      CHECK(trace(loader, 0, 14) == whole);
      CHECK(loader.failures().size() == 2);
      DataLoader resumed(data, options);
      const std::string tail = trace(resumed, 9, 14);
      CHECK(whole.substr(whole.size() - tail.size()) == tail);
      CHECK(trace(resumed, 2, 3) + trace(resumed, 9, 14) ==
            trace(plain, 2, 3) + tail);  // any step may be asked for
    }
  }
  options.seed = 6;
  DataLoader other(data, options);
  CHECK(trace(other, 0, 14) != whole);
}

TEST_CASE("the global batch is formed first, then dealt to ranks", "[loader]") {
  auto data = std::make_shared<Numbers>(20);
  DataLoader one(data, {.micro_batch_size = 4, .workers = 0});
  DataLoader first(data, {.micro_batch_size = 2, .rank = 0, .world = 2, .workers = 1});
  DataLoader second(data, {.micro_batch_size = 2, .rank = 1, .world = 2, .workers = 2});
  for (int64_t step = 0; step < 10; ++step) {
    const Tensor whole = one.next(step)[0].tensors["x"];
    CHECK(torch::equal(
        whole, torch::cat({first.next(step)[0].tensors["x"], second.next(step)[0].tensors["x"]})));
  }
}

TEST_CASE("a pass over one bucket meets every item once, in another order each time", "[loader]") {
  class Plain : public Numbers {
   public:
    using Numbers::Numbers;
    int64_t bucket(int64_t) const override { return 0; }
  };
  Plain data(12);
  SampleOrder order(data, 1, 5);
  std::vector<int64_t> items;
  for (int64_t step = 0; step < 12; ++step)
    for (const auto& draw : order.step(step)) {
      CHECK(draw.index == static_cast<int64_t>(items.size()));
      items.push_back(draw.item);
    }
  std::set<std::vector<int64_t>> orders;
  for (int64_t pass = 0; pass < 5; ++pass) {
    const std::vector<int64_t> part(items.begin() + pass * 12, items.begin() + (pass + 1) * 12);
    CHECK(std::set<int64_t>(part.begin(), part.end()).size() == 12);
    orders.insert(part);
  }
  CHECK(orders.size() == 5);
}

TEST_CASE("batches keep to one bucket and an epoch covers them all", "[loader]") {
  Numbers data(20);  // 7 and 13 items
  SampleOrder order(data, 3, 4);
  CHECK(order.batches_per_epoch() == 2 + 4);
  std::set<int64_t> met;
  for (int64_t step = 0; step < 6; ++step) {
    std::set<int64_t> buckets;
    for (const auto& draw : order.step(step)) {
      buckets.insert(data.bucket(draw.item));
      met.insert(draw.item);
    }
    CHECK(buckets.size() == 1);
  }
  CHECK(met.size() == 20);
}

TEST_CASE("too many unreadable items stop the run with the list", "[loader]") {
  auto data = std::make_shared<Numbers>(10, std::set<int64_t>{1, 2, 5});
  DataLoader loader(data, {.micro_batch_size = 5, .max_failed_fraction = 0.25});
  try {
    trace(loader, 0, 20);
    FAIL("expected an Error");
  } catch (const Error& error) {
    CHECK_THAT(error.what(), Catch::StartsWith("3 of 10 items could not be read: ") &&
                                 Catch::Contains("n1: is broken") &&
                                 Catch::Contains("n5: is broken") &&
                                 Catch::EndsWith("(max_failed_fraction is 0.25)"));
  }
  DataLoader all_bad(std::make_shared<Numbers>(1, std::set<int64_t>{0}),
                     {.max_failed_fraction = 1.0});
  CHECK_THROWS_WITH(all_bad.next(0), Catch::Contains("no readable item"));
  CHECK_THROWS_WITH(DataLoader(std::make_shared<Numbers>(0), {}), Catch::Contains("no items"));
}

TEST_CASE("reading ahead hides the reading", "[loader]") {
  class Slow : public Numbers {
   public:
    using Numbers::Numbers;
    Sample get(int64_t item, uint64_t seed, int64_t index) override {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      return Numbers::get(item, seed, index);
    }
  };
  DataLoader loader(std::make_shared<Slow>(6), {.micro_batch_size = 2, .workers = 2});
  loader.next(0);
  CHECK(loader.last_wait_seconds() > 0.015);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  loader.next(1);
  CHECK(loader.last_wait_seconds() < 0.015);
}

TEST_CASE("a cached dataset computes an item once, in memory or across runs", "[loader]") {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("cosmos_cache_" + std::to_string(::getpid()));
  for (const bool on_disk : {false, true}) {
    INFO(on_disk);
    const CacheOptions options{.folder = on_disk ? folder : "", .fingerprint = "a"};
    int maps = 0;
    const SampleMap map = [&](Sample sample) {
      ++maps;
      sample.tensors = {{"latents", sample.tensors["x"] * 2}};
      return sample;
    };
    auto data = std::make_shared<Numbers>(4, std::set<int64_t>{2});
    CachedDataset cached(data, map, options);
    int64_t last = 0;
    cached.precompute([&](int64_t done, int64_t size) { last = done * 10 + size; });
    CHECK(last == 44);
    CHECK(maps == 3);
    const Sample sample = cached.get(3, 9, 77);
    CHECK(sample.index == 77);
    CHECK(sample.text.at("name") == "n3");
    CHECK(sample.tensors.at("latents")[0].item<double>() == 6);
    CHECK_THROWS_AS(cached.get(2, 0, 0), Error);
    CHECK(maps == 3);
    CachedDataset again(data, map, options);
    again.precompute();
    CHECK(maps == (on_disk ? 3 : 6));
    CachedDataset changed(data, map, {.folder = options.folder, .fingerprint = "b"});
    changed.precompute();
    CHECK(maps == (on_disk ? 6 : 9));
  }
  std::filesystem::remove_all(folder);
}
