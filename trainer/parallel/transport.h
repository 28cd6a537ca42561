#pragma once

// What moves a group's bytes. Group checks arguments and words errors; a Transport only starts
// operations. c10d is one, copying inside a single process another, tests wrap either.

#include <memory>
#include <string>
#include <vector>

#include "trainer/parallel/group.h"

namespace cosmos::trainer {

/// Each operation starts and returns what to wait for, null when it is done already. Arguments are
/// flat; operations of one transport run in the order of the calls. Failures are exceptions of any
/// kind, from the call or from the work.
class Transport {
 public:
  using Work = c10::intrusive_ptr<c10d::Work>;

  virtual ~Transport() = default;
  virtual Work all_gather(const Tensor& in, const Tensor& out) = 0;
  virtual Work reduce_scatter(const Tensor& in, const Tensor& out) = 0;
  virtual Work all_reduce(const Tensor& x, Group::Reduce op) = 0;
  virtual Work broadcast(const Tensor& x, int64_t source) = 0;
  virtual Work all_to_all(const Tensor& in, const Tensor& out) = 0;
  virtual Work exchange(const std::vector<Message>& send, const std::vector<Message>& receive) = 0;
  /// Of `ranks`, which hold this one; at least two.
  virtual std::shared_ptr<Transport> subgroup(const std::string& name,
                                              const std::vector<int64_t>& ranks) = 0;
};

/// The only rank: copies.
std::shared_ptr<Transport> local_transport();

/// All ranks of `env` (at least two) over c10d.
std::shared_ptr<Transport> c10d_transport(const RankEnv& env, at::Device device,
                                          std::chrono::milliseconds timeout);

}  // namespace cosmos::trainer
