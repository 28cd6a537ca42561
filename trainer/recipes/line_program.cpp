#include "trainer/recipes/line_program.h"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ops/core/error.h"

extern char** environ;

namespace cosmos::trainer {

LineProgram::LineProgram(std::vector<std::string> command, std::string where, int patience_s)
    : command_(std::move(command)), where_(std::move(where)), patience_s_(patience_s) {}

LineProgram::~LineProgram() {
  if (process_ < 0) return;
  ::close(to_);
  ::close(from_);
  ::waitpid(process_, nullptr, 0);
}

void LineProgram::start() {
  int in[2], out[2];
  require(::pipe2(in, O_CLOEXEC) == 0 && ::pipe2(out, O_CLOEXEC) == 0, where_,
          ": cannot make a pipe: ", std::strerror(errno));
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  std::vector<char*> argv;
  for (auto& word : command_) argv.push_back(word.data());
  argv.push_back(nullptr);
  const int error = ::posix_spawnp(&process_, argv[0], &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(in[0]);
  ::close(out[1]);
  to_ = in[1];
  from_ = out[0];
  if (error == 0) return;
  process_ = -1;
  ::close(to_);
  ::close(from_);
  fail(where_, ": ", command_[0], " cannot be started: ", std::strerror(error));
}

std::string LineProgram::ask(const std::string& line) {
  if (process_ < 0) start();
  const std::string text = line + "\n";
  // A program that has ended must be an error here, not a signal that ends us.
  struct sigaction ignore {
  }, before{};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, &before);
  std::size_t sent = 0;
  while (sent < text.size()) {
    const ssize_t n = ::write(to_, text.data() + sent, text.size() - sent);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    sent += static_cast<std::size_t>(n);
  }
  ::sigaction(SIGPIPE, &before, nullptr);
  require(sent == text.size(), where_, ": ", command_[0], " has ended");
  for (;;) {
    const auto end = held_.find('\n');
    if (end != std::string::npos) {
      const std::string answer = held_.substr(0, end);
      held_.erase(0, end + 1);
      return answer;
    }
    pollfd ready{.fd = from_, .events = POLLIN, .revents = 0};
    const int count = ::poll(&ready, 1, patience_s_ * 1000);
    if (count < 0 && errno == EINTR) continue;
    require(count != 0, where_, ": ", command_[0], " gave no answer within ", patience_s_, " s");
    char buffer[4096];
    const ssize_t n = ::read(from_, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    require(n > 0, where_, ": ", command_[0], " has ended without an answer");
    held_.append(buffer, static_cast<std::size_t>(n));
  }
}

}  // namespace cosmos::trainer
