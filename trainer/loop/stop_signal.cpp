#include "trainer/loop/stop_signal.h"

#include <signal.h>
#include <unistd.h>

namespace cosmos::trainer {
namespace {

volatile sig_atomic_t received_signal = 0;
struct sigaction previous_int, previous_term;

extern "C" void on_stop_signal(int number) {
  if (received_signal != 0) _exit(128 + number);
  received_signal = number;
}

}  // namespace

StopSignal::StopSignal() {
  received_signal = 0;
  struct sigaction action {};
  action.sa_handler = on_stop_signal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, &previous_int);
  sigaction(SIGTERM, &action, &previous_term);
}

StopSignal::~StopSignal() {
  sigaction(SIGINT, &previous_int, nullptr);
  sigaction(SIGTERM, &previous_term, nullptr);
}

int StopSignal::received() const {
  return received_signal;
}

}  // namespace cosmos::trainer
