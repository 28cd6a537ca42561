#pragma once

// A group of ranks that communicate: collectives over LibTorch's c10d (Gloo on CPUs, NCCL on GPUs).
//
// Tensors are contiguous and on the group's device type; sizes agree on all ranks. Every call must
// be made by every rank of the group, in the same order. A group of one rank copies.

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "modules/core/tensor.h"
#include "trainer/parallel/rank_env.h"

namespace c10d {
class Work;
}  // namespace c10d

namespace cosmos::trainer {

class Transport;  // what moves the bytes: trainer/parallel/transport.h

/// What one rank sends to another, or receives from it.
struct Message {
  Tensor x;
  int64_t peer = 0;  ///< rank in the group
};

/// Is told of every collective of a group and of the groups made of it: what a rank was in when it
/// got stuck (trainer/resilience). Called by the thread that calls the group.
class GroupObserver {
 public:
  virtual ~GroupObserver() = default;
  /// Begun; returns a number of its own, from 1. `bytes`: of this rank's input.
  virtual int64_t started(const std::string& group, const char* operation, int64_t bytes) = 0;
  virtual void waiting(int64_t number) = 0;
  virtual void finished(int64_t number) = 0;
};

/// A collective under way. Its outputs hold rubbish, and its inputs must not change, until wait().
class Pending {
 public:
  Pending();  ///< nothing to wait for
  /// `what` begins the message of an error: "group shard: all_gather: rank 1 of 2".
  explicit Pending(c10::intrusive_ptr<c10d::Work> work, std::string what = "collective",
                   GroupObserver* observer = nullptr, int64_t number = 0);
  /// Waits for nothing; what is under way keeps its own hold on the tensors.
  ~Pending();
  Pending(Pending&&) noexcept;
  Pending& operator=(Pending&&) noexcept;

  /// Blocks until done (on CUDA: makes the current stream wait). Once; then it is empty. Throws
  /// Error naming group and operation when a rank failed or did not answer in time.
  void wait();
  explicit operator bool() const;

 private:
  c10::intrusive_ptr<c10d::Work> work_;
  std::string what_;
  GroupObserver* observer_ = nullptr;
  int64_t number_ = 0;  ///< the observer's
};

class Group {
 public:
  /// Ranks that `transport` connects; tests give their own. Others call connect() and subgroup().
  Group(std::string name, int64_t rank, int64_t size, std::shared_ptr<Transport> transport);
  /// A group of one rank.
  explicit Group(std::string name);

  int64_t rank() const { return rank_; }
  int64_t size() const { return size_; }
  const std::string& name() const { return name_; }
  const std::shared_ptr<Transport>& transport() const { return transport_; }

  /// out [size * n] = the ranks' `in` [n], one after another. `in` may be this rank's part of out.
  Pending all_gather(const Tensor& in, const Tensor& out) const;
  /// out [n] = sum over ranks of their in [size * n], this rank's part.
  Pending reduce_scatter(const Tensor& in, const Tensor& out) const;
  enum class Reduce { kSum, kMax };
  Pending all_reduce(const Tensor& x, Reduce op = Reduce::kSum) const;
  Pending broadcast(const Tensor& x, int64_t source) const;
  /// in, out [size * n]: part r of `in` goes to rank r, part s of `out` came from rank s.
  Pending all_to_all(const Tensor& in, const Tensor& out) const;
  /// Messages between pairs, all under way at once; only those that send or receive call it. Of two
  /// ranks' messages the first sent is the first received; sizes and dtypes agree on both sides.
  Pending exchange(const std::vector<Message>& send, const std::vector<Message>& receive) const;
  /// Returns when every rank came here. Of processes: it waits for no CUDA stream.
  void barrier() const;
  /// Every rank's text, by rank. For small things (metrics, names); goes through the CPU.
  std::vector<std::string> all_gather_text(const std::string& text) const;

  /// Null: nobody. Groups that are made of this one afterwards have the same.
  void set_observer(std::shared_ptr<GroupObserver> observer) { observer_ = std::move(observer); }

  /// The group of `ranks` (numbers in this group; their order is the new numbering). Called by all
  /// of them, and by others or not; null on a rank that is not among them.
  std::shared_ptr<Group> subgroup(const std::string& name, const std::vector<int64_t>& ranks) const;

 private:
  std::string describe(const char* operation) const;
  template <typename Start>
  Pending start(const char* operation, std::size_t bytes, Start start_it) const;

  std::string name_;
  int64_t rank_ = 0;
  int64_t size_ = 1;
  std::shared_ptr<Transport> transport_;
  std::shared_ptr<GroupObserver> observer_;
};

/// The group "world" of all ranks of `env`, on the CPU or a GPU (by default number local_rank).
/// Returns when all are there; throws Error when some are not within `timeout`, which later holds
/// for each collective. One rank needs no network. GLOO_SOCKET_IFNAME chooses the network
/// interface; by default it is the one that leads to rank 0.
std::shared_ptr<Group> connect(const RankEnv& env, at::Device device,
                               std::chrono::milliseconds timeout = std::chrono::minutes(10));

}  // namespace cosmos::trainer
