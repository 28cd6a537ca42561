#include "trainer/offload/activation_offload.h"

#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <map>
#include <optional>
#include <set>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/saved_variable_hooks.h>
#include <utility>

namespace cosmos::trainer {
namespace {

/// The storage's bytes as a tensor; no copy.
Tensor bytes_of(const c10::Storage& storage) {
  return torch::empty({0}, torch::TensorOptions(torch::kUInt8).device(storage.device()))
      .set_(storage, 0, {static_cast<int64_t>(storage.nbytes())}, {1});
}

/// Makes a GPU's copies on a stream of their own, while others compute. On the CPU there is nothing
/// to wait for.
class CopyStream {
 public:
  explicit CopyStream(torch::Device device) : device_(device) {
    if (!device.is_cpu()) side_ = implementation().getStreamFromGlobalPool(device);
  }

  /// to = from, after the work that is queued now. Returns what readers of a GPU's copy wait for.
  std::shared_ptr<c10::Event> copy(const Tensor& to, const Tensor& from) const {
    if (!side_) {
      to.copy_(from);
      return nullptr;
    }
    c10::Event before(device_.type());
    before.record(implementation().getStream(device_));
    before.block(*side_);
    const c10::StreamGuard on_side(*side_);
    to.copy_(from, /*non_blocking=*/true);
    (from.is_cpu() ? to : from).record_stream(*side_);
    auto done = std::make_shared<c10::Event>(device_.type());
    done->record(*side_);
    return done;
  }

  /// Work that is queued from now on waits for `done`.
  void wait(c10::Event& done) const { done.block(implementation().getStream(device_)); }
  bool is_cpu() const { return !side_; }

 private:
  c10::impl::VirtualGuardImpl implementation() const {
    return c10::impl::VirtualGuardImpl(device_.type());
  }

  torch::Device device_;
  std::optional<c10::Stream> side_;
};

}  // namespace

/// A storage that left.
struct ActivationOffload::Copy {
  Tensor away;  ///< [bytes], on the CPU
  c10::weak_intrusive_ptr<c10::StorageImpl> original;
  uint32_t version = 0;
  torch::Device device = torch::kCPU;
  Tensor back{};  ///< [bytes], on the device
  std::shared_ptr<c10::Event> returned{};
};

struct ActivationOffload::State {
  std::shared_ptr<AwayMemory> memory;
  int64_t min_bytes = 0;
  int64_t moved = 0;
  std::optional<CopyStream> stream{};
  /// By storage: what is saved several times, by one block or by several, is sent once.
  std::map<const c10::StorageImpl*, std::weak_ptr<Copy>> copies{};
  std::weak_ptr<Passage> last{};

  std::shared_ptr<Copy> send(const Tensor& x) {
    const c10::Storage& storage = x.storage();
    std::weak_ptr<Copy>& known = copies[storage.unsafeGetStorageImpl()];
    if (auto copy = known.lock();
        copy && !copy->original.expired() && copy->version == x._version())
      return copy;
    if (!stream) stream.emplace(x.device());
    const auto bytes = static_cast<int64_t>(storage.nbytes());
    auto copy = std::make_shared<Copy>(Copy{.away = memory->empty({bytes}, torch::kUInt8),
                                            .original = storage.getWeakStorageImpl(),
                                            .version = static_cast<uint32_t>(x._version()),
                                            .device = x.device()});
    stream->copy(copy->away, bytes_of(storage));
    moved += bytes;
    known = copy;
    return copy;
  }

  /// Begins to bring it back.
  void fetch(Copy& copy) const {
    if (copy.back.defined()) return;
    if (stream->is_cpu()) {
      copy.back = copy.away;  // where the CPU reads it anyway
      return;
    }
    copy.back =
        torch::empty(copy.away.sizes(), torch::TensorOptions(torch::kUInt8).device(copy.device));
    copy.returned = stream->copy(copy.back, copy.away);
  }
};

/// A block's run in forward. In backward they come in the opposite order.
struct ActivationOffload::Passage {
  std::shared_ptr<State> state;
  std::set<const c10::StorageImpl*> stays{};  ///< parameters and buffers
  std::vector<std::weak_ptr<Copy>> copies{};
  std::weak_ptr<Passage> before{};
  bool asked = false;  ///< to come back

  bool travels(const Tensor& x) const {
    if (!x.defined() || !x.has_storage() || x.layout() != torch::kStrided) return false;
    const c10::Storage& storage = x.storage();
    // A small view of something large would take all of it along.
    return stays.count(storage.unsafeGetStorageImpl()) == 0 &&
           static_cast<int64_t>(storage.nbytes()) >= std::max<int64_t>(1, state->min_bytes) &&
           storage.nbytes() <= 4 * x.nbytes();
  }

  void bring_back() {
    if (std::exchange(asked, true)) return;
    for (const auto& weak : copies)
      if (const auto copy = weak.lock()) state->fetch(*copy);
  }

  /// Whose block saves tensors on this thread.
  static thread_local std::shared_ptr<Passage> current;
};
thread_local std::shared_ptr<ActivationOffload::Passage> ActivationOffload::Passage::current;

/// What stands in the graph for one saved tensor.
class OffloadHooks : public torch::autograd::SavedVariableHooks {
 public:
  using Passage = ActivationOffload::Passage;

  /// Null outside of blocks that are offloaded.
  static std::unique_ptr<OffloadHooks> make() {
    return Passage::current ? std::make_unique<OffloadHooks>(Passage::current) : nullptr;
  }
  explicit OffloadHooks(std::shared_ptr<Passage> passage) : passage_(std::move(passage)) {}

  void call_pack_hook(const Tensor& x) override {
    const torch::NoGradGuard no_grad;
    if (!passage_->travels(x)) {
      stays_ = x;
      return;
    }
    copy_ = passage_->state->send(x);
    passage_->copies.push_back(copy_);
    offset_ = x.storage_offset();
    sizes_ = x.sizes().vec();
    strides_ = x.strides().vec();
    dtype_ = x.scalar_type();
  }

  Tensor call_unpack_hook() override {
    if (!copy_) return stays_;
    const torch::NoGradGuard no_grad;
    const ActivationOffload::State& state = *passage_->state;
    passage_->bring_back();
    if (const auto before = passage_->before.lock()) before->bring_back();
    state.fetch(*copy_);
    if (copy_->returned) state.stream->wait(*copy_->returned);
    return torch::empty({0}, torch::TensorOptions(dtype_).device(copy_->device))
        .set_(copy_->back.storage(), offset_, sizes_, strides_);
  }

 private:
  std::shared_ptr<Passage> passage_;
  Tensor stays_;
  std::shared_ptr<ActivationOffload::Copy> copy_;
  int64_t offset_ = 0;
  std::vector<int64_t> sizes_, strides_;
  torch::Dtype dtype_ = torch::kFloat32;
};

namespace {

class HookedEngine : public torch::autograd::Engine {
 public:
  ~HookedEngine() override { stop(); }
  std::unique_ptr<torch::autograd::SavedVariableHooks> get_default_saved_variable_hooks() override {
    return OffloadHooks::make();
  }
};

torch::autograd::Engine& hooked_engine() {
  static HookedEngine engine;
  return engine;
}

}  // namespace

ActivationOffload::ActivationOffload(std::shared_ptr<AwayMemory> memory,
                                     std::shared_ptr<modules::BlockRunner> inner, int64_t min_bytes)
    : state_(std::make_shared<State>(State{.memory = std::move(memory), .min_bytes = min_bytes})),
      inner_(std::move(inner)) {
  torch::autograd::set_default_engine_stub(hooked_engine);
}

ActivationOffload::~ActivationOffload() = default;

Tensors ActivationOffload::run(const std::string& name, torch::nn::Module& block,
                               const Tensors& inputs, const modules::BlockFn& fn) {
  const auto compute = [&] { return inner_ ? inner_->run(name, block, inputs, fn) : fn(inputs); };
  if (!torch::GradMode::is_enabled()) return compute();
  const auto passage = std::make_shared<Passage>(Passage{.state = state_});
  for (const Tensor& x : block.parameters())
    passage->stays.insert(x.storage().unsafeGetStorageImpl());
  for (const Tensor& x : block.buffers()) passage->stays.insert(x.storage().unsafeGetStorageImpl());
  passage->before = std::exchange(state_->last, passage);
  // Restored when the block throws, too.
  struct Restore {
    std::shared_ptr<Passage> outer = Passage::current;
    ~Restore() { Passage::current = outer; }
  } const restore;
  Passage::current = passage;
  return compute();
}

int64_t ActivationOffload::moved_bytes() const {
  return state_->moved;
}

}  // namespace cosmos::trainer
