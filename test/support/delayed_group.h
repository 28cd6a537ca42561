#pragma once

// A group that is as unhelpful as a network may be: every operation starts after a random delay,
// and its outputs are NaN until waited for. What reads them early, or changes inputs early, shows.

#include <chrono>
#include <functional>
#include <future>
#include <limits>
#include <random>
#include <thread>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include "trainer/parallel/transport.h"

namespace cosmos::test {

/// Done when `run` was; the results appear at wait() and not before.
class DelayedWork : public c10d::Work {
 public:
  DelayedWork(std::shared_future<void> run, std::function<void()> publish)
      : run_(std::move(run)), publish_(std::move(publish)) {}
  bool wait(std::chrono::milliseconds) override {
    run_.get();
    publish_();
    return true;
  }

 private:
  std::shared_future<void> run_;
  std::function<void()> publish_;
};

class DelayedTransport : public trainer::Transport {
 public:
  DelayedTransport(std::shared_ptr<trainer::Transport> inner, uint64_t seed)
      : inner_(std::move(inner)), random_(seed) {}

  Work all_gather(const Tensor& in, const Tensor& out) override {
    const Tensor result = torch::empty_like(out);
    spoil(out, in);
    return later([this, in, result] { return inner_->all_gather(in, result); }, out, result);
  }
  Work reduce_scatter(const Tensor& in, const Tensor& out) override {
    const Tensor result = torch::empty_like(out);
    spoil(out, in);
    return later([this, in, result] { return inner_->reduce_scatter(in, result); }, out, result);
  }
  Work all_reduce(const Tensor& x, trainer::Group::Reduce op) override {
    const Tensor result = x.clone();
    spoil(x, {});
    return later([this, result, op] { return inner_->all_reduce(result, op); }, x, result);
  }
  Work broadcast(const Tensor& x, int64_t source) override {
    const Tensor result = x.clone();
    spoil(x, {});
    return later([this, result, source] { return inner_->broadcast(result, source); }, x, result);
  }
  Work all_to_all(const Tensor& in, const Tensor& out) override {
    const Tensor result = torch::empty_like(out);
    spoil(out, {});
    return later([this, in, result] { return inner_->all_to_all(in, result); }, out, result);
  }
  Work exchange(const std::vector<trainer::Message>& send,
                const std::vector<trainer::Message>& receive) override {
    std::vector<trainer::Message> results;
    for (const auto& message : receive) {
      results.push_back({.x = torch::empty_like(message.x), .peer = message.peer});
      spoil(message.x, {});
    }
    return later([this, send, results] { return inner_->exchange(send, results); },
                 [receive, results] {
                   for (std::size_t i = 0; i < results.size(); ++i)
                     Tensor(receive[i].x).copy_(results[i].x);
                 });
  }
  std::shared_ptr<Transport> subgroup(const std::string& name,
                                      const std::vector<int64_t>& ranks) override {
    return std::make_shared<DelayedTransport>(inner_->subgroup(name, ranks), random_());
  }

 private:
  /// NaN everywhere but in `kept`, which may be a part of x.
  static void spoil(const Tensor& x, const Tensor& kept) {
    const Tensor copy = kept.defined() ? kept.clone() : Tensor();
    if (x.is_floating_point()) {
      x.fill_(std::numeric_limits<double>::quiet_NaN());
    } else {
      x.fill_(101);
    }
    if (kept.defined() && kept.is_alias_of(x)) kept.copy_(copy);
  }

  Work later(std::function<Work()> start, const Tensor& out, const Tensor& result) {
    return later(std::move(start), [out, result] { out.copy_(result); });
  }
  Work later(std::function<Work()> start, std::function<void()> publish) {
    const std::chrono::microseconds delay(random_() % 3000);
    // In the order of the calls, as a real group. `before` is let go, or a chain of all would stay.
    const auto run = [start = std::move(start), before = last_, delay]() mutable {
      if (before.valid()) before.wait();
      before = {};
      std::this_thread::sleep_for(delay);
      if (const Work work = start()) work->wait();
    };
    last_ = std::async(std::launch::async, run).share();
    return c10::make_intrusive<DelayedWork>(last_, std::move(publish));
  }

  std::shared_ptr<trainer::Transport> inner_;
  std::mt19937_64 random_;
  std::shared_future<void> last_;  ///< last member: its thread uses the others
};

/// `group`, delayed, and every subgroup made of it.
inline std::shared_ptr<trainer::Group> delayed(const trainer::Group& group, uint64_t seed) {
  return std::make_shared<trainer::Group>(
      group.name(), group.rank(), group.size(),
      std::make_shared<DelayedTransport>(group.transport(), seed + 977 * group.rank()));
}

}  // namespace cosmos::test
