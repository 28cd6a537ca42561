#include <boost/context/fiber.hpp>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#define COSMOS_ASAN_FIBERS
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define COSMOS_ASAN_FIBERS
#endif
#endif
#ifdef COSMOS_ASAN_FIBERS
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_emulation {
namespace {

/// A stack that fibers run on, as AddressSanitizer wants to know of it. It has to be told of every
/// switch between stacks; without it these do nothing.
struct Stack {
  const void* bottom = nullptr;
  std::size_t size = 0;
};

#ifdef COSMOS_ASAN_FIBERS
void leaving_for(void** kept, Stack to) {
  __sanitizer_start_switch_fiber(kept, to.bottom, to.size);
}
void arrived(void* kept, Stack* from) {
  __sanitizer_finish_switch_fiber(kept, &from->bottom, &from->size);
}
#else
void leaving_for(void**, Stack) {}
void arrived(void*, Stack*) {}
#endif

constexpr int kWarp = 32;
constexpr std::size_t kStack = 256 * 1024;

enum class State { kReady, kAtShuffle, kAtBarrier, kDone };

struct Fiber {
  boost::context::fiber context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  State state = State::kReady;
  float slot = 0;
};

/// Lends a fiber the stack that it keeps from kernel to kernel.
struct KeptStack {
  using traits_type = boost::context::stack_traits;
  char* bottom;

  boost::context::stack_context allocate() {
    boost::context::stack_context stack;
    stack.sp = bottom + kStack;  // stacks grow downwards
    stack.size = kStack;
    return stack;
  }
  void deallocate(boost::context::stack_context&) {}
};

struct Block {
  std::vector<Fiber> fibers;
  boost::context::fiber scheduler;
  Stack scheduler_stack;
  const std::function<void()>* thread = nullptr;
  int current = 0;
};
Block block;

boost::context::fiber start(boost::context::fiber&& scheduler) {
  arrived(nullptr, &block.scheduler_stack);
  block.scheduler = std::move(scheduler);
  (*block.thread)();
  block.fibers[block.current].state = State::kDone;
  leaving_for(nullptr, block.scheduler_stack);  // for good
  return std::move(block.scheduler);
}

/// Back to the scheduler until it resumes this fiber.
void wait_as(State state) {
  block.fibers[block.current].state = state;
  void* kept = nullptr;
  leaving_for(&kept, block.scheduler_stack);
  block.scheduler = std::move(block.scheduler).resume();
  arrived(kept, &block.scheduler_stack);
}

void resume(int i) {
  block.current = i;
  threadIdx = dim3(static_cast<unsigned>(i));
  void* kept = nullptr;
  Stack fiber;
  leaving_for(&kept, {block.fibers[i].stack.get(), kStack});
  block.fibers[i].context = std::move(block.fibers[i].context).resume();
  arrived(kept, &fiber);
}

/// Runs the lanes [begin, end) until all are done or all are at a block barrier.
State run_warp(int begin, int end) {
  for (;;) {
    for (int i = begin; i < end; ++i)
      if (block.fibers[i].state == State::kReady) resume(i);
    const State state = block.fibers[begin].state;
    for (int i = begin; i < end; ++i)
      if (block.fibers[i].state != state)
        throw std::runtime_error("CUDA emulation: lanes " + std::to_string(begin) + " and " +
                                 std::to_string(i) + " of a warp part at a barrier or shuffle");
    if (state != State::kAtShuffle) return state;
    for (int i = begin; i < end; ++i) block.fibers[i].state = State::kReady;
  }
}

void run_block(int threads) {
  for (int i = 0; i < threads; ++i) {
    Fiber& fiber = block.fibers[i];
    fiber.state = State::kReady;
    fiber.context = boost::context::fiber(std::allocator_arg, KeptStack{fiber.stack.get()}, start);
  }
  for (;;) {
    State all = State::kReady;
    for (int begin = 0; begin < threads; begin += kWarp) {
      const State warp = run_warp(begin, begin + kWarp);
      if (all != State::kReady && warp != all)
        throw std::runtime_error("CUDA emulation: a warp never reaches the others' __syncthreads");
      all = warp;
    }
    if (all == State::kDone) return;
    for (int i = 0; i < threads; ++i) block.fibers[i].state = State::kReady;
  }
}

}  // namespace

void block_barrier() {
  wait_as(State::kAtBarrier);
}

float exchange(float value, int mask) {
  block.fibers[block.current].slot = value;
  wait_as(State::kAtShuffle);
  const float other = block.fibers[block.current ^ mask].slot;
  wait_as(State::kAtShuffle);  // nobody writes its slot again before all have read
  return other;
}

void run(dim3 grid, int threads, const std::function<void()>& thread) {
  if (threads % kWarp != 0 || threads > 1024 || threads <= 0)
    throw std::runtime_error("CUDA emulation: blocks are 1 to 32 whole warps, got " +
                             std::to_string(threads) + " threads");
  // Stacks are kept for the next kernel: making hundreds is most of a small kernel's time.
  if (block.fibers.size() < static_cast<std::size_t>(threads))
    block.fibers.resize(static_cast<std::size_t>(threads));
  block.thread = &thread;
  gridDim = grid;
  blockDim = dim3(static_cast<unsigned>(threads));
  for (unsigned i = 0; i < grid.x; ++i) {
    blockIdx = dim3(i);
    run_block(threads);
  }
}

}  // namespace cuda_emulation
