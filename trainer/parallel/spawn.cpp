#include "trainer/parallel/spawn.h"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <iostream>
#include <map>
#include <netinet/in.h>
#include <optional>
#include <sched.h>
#include <string_view>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "ops/core/error.h"

namespace cosmos::trainer {
namespace {

using Clock = std::chrono::steady_clock;

/// A port that was free a moment ago; rank 0 takes it a moment later.
int free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  const bool bound = fd >= 0 &&
                     ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 &&
                     ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0;
  if (fd >= 0) ::close(fd);
  require(bound, "local ranks: expected a free port on 127.0.0.1, got: ", std::strerror(errno),
          "; bring the loopback interface up");
  return ntohs(address.sin_port);
}

int cores() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1U, std::thread::hardware_concurrency());
}

/// This process's environment with the rank's variables over it, as NAME=value.
std::vector<std::string> rank_environment(int rank, int n, int port) {
  std::map<std::string, std::string> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const std::size_t equals = text.find('=');
    if (equals != std::string_view::npos)
      variables.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  variables.emplace("OMP_NUM_THREADS", std::to_string(std::max(1, cores() / n)));
  variables["RANK"] = variables["LOCAL_RANK"] = std::to_string(rank);
  variables["WORLD_SIZE"] = variables["LOCAL_WORLD_SIZE"] = std::to_string(n);
  variables["MASTER_ADDR"] = "127.0.0.1";
  variables["MASTER_PORT"] = std::to_string(port);
  variables.erase("TORCHELASTIC_USE_AGENT_STORE");  // an agent around us serves another store
  std::vector<std::string> entries;
  for (const auto& [name, value] : variables) entries.push_back(name + "=" + value);
  return entries;
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (const std::string& s : strings) result.push_back(const_cast<char*>(s.c_str()));
  result.push_back(nullptr);
  return result;
}

volatile sig_atomic_t stop_requests[2];  // SIGINT, SIGTERM: how often each arrived

extern "C" void count_stop_request(int number) {
  stop_requests[number == SIGINT ? 0 : 1] = stop_requests[number == SIGINT ? 0 : 1] + 1;
}

/// Counts SIGINT and SIGTERM while it lives.
class StopRequests {
 public:
  StopRequests() {
    stop_requests[0] = 0;
    stop_requests[1] = 0;
    struct sigaction action {};
    action.sa_handler = count_stop_request;
    ::sigaction(SIGINT, &action, &previous_[0]);
    ::sigaction(SIGTERM, &action, &previous_[1]);
  }
  ~StopRequests() {
    ::sigaction(SIGINT, &previous_[0], nullptr);
    ::sigaction(SIGTERM, &previous_[1], nullptr);
  }
  StopRequests(const StopRequests&) = delete;
  StopRequests& operator=(const StopRequests&) = delete;

  /// One that was not handed out yet; 0 when there is none.
  int next() {
    for (int i = 0; i < 2; ++i)
      if (seen_[i] < stop_requests[i]) return ++seen_[i], i == 0 ? SIGINT : SIGTERM;
    return 0;
  }

 private:
  struct sigaction previous_[2]{};
  int seen_[2] = {0, 0};
};

/// SIGINT and SIGTERM held back while it lives: one that came between fork and exec would be lost.
class SignalsHeld {
 public:
  SignalsHeld() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    ::pthread_sigmask(SIG_BLOCK, &set, &previous_);
  }
  ~SignalsHeld() { release(); }
  SignalsHeld(const SignalsHeld&) = delete;
  SignalsHeld& operator=(const SignalsHeld&) = delete;
  void release() const { ::pthread_sigmask(SIG_SETMASK, &previous_, nullptr); }

 private:
  sigset_t previous_{};
};

/// The child's part between fork and exec: system calls only, others' locks may be held.
[[noreturn]] void become(pid_t parent, const char* program, char** argv, char** environment,
                         const SignalsHeld& held) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);  // the parent died before prctl
  ::setpgid(0, 0);
  const int null = ::open("/dev/null", O_RDONLY);  // a background group must not read the terminal
  if (null > 0) ::dup2(null, STDIN_FILENO), ::close(null);
  ::signal(SIGINT, SIG_DFL);
  ::signal(SIGTERM, SIG_DFL);
  held.release();
  ::execve(program, argv, environment);
  ::_exit(127);
}

class Ranks {
 public:
  explicit Ranks(const SpawnOptions& options)
      : options_(options), log_(options.log != nullptr ? *options.log : std::cerr) {}
  ~Ranks() {  // after an error; otherwise none runs any more
    signal_all(SIGKILL);
    for (const Child& child : children_)
      if (child.running) ::waitpid(child.pid, nullptr, 0);
  }
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  void start(int n, const std::vector<std::string>& argv) {
    const int port = free_port();
    for (int rank = 0; rank < n; ++rank) start(rank, n, port, argv);
  }

  int wait(StopRequests& requests) {
    while (running() > 0) {
      for (int rank = 0; rank < static_cast<int>(children_.size()); ++rank) reap(rank);
      while (const int number = requests.next()) asked_ = number, signal_all(number);
      stop_after_failure();
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return code_;
  }

  /// A signal to stop was passed on.
  bool asked() const { return asked_ != 0; }

 private:
  struct Child {
    pid_t pid;
    bool running = true;
  };

  void start(int rank, int n, int port, const std::vector<std::string>& argv) {
    const std::vector<std::string> environment = rank_environment(rank, n, port);
    std::vector<char*> argv_pointers = pointers(argv);
    std::vector<char*> environment_pointers = pointers(environment);
    const pid_t parent = ::getpid();
    const SignalsHeld held;
    const pid_t pid = ::fork();
    require(pid >= 0, "local ranks: expected ", n, " processes, got ", rank, ": ",
            std::strerror(errno), "; lower --nproc, or raise ulimit -u");
    if (pid == 0)
      become(parent, options_.program.c_str(), argv_pointers.data(), environment_pointers.data(),
             held);
    ::setpgid(pid, pid);  // here too: a signal may be sent before the child comes to it
    children_.push_back({pid});
  }

  int64_t running() const {
    return std::count_if(children_.begin(), children_.end(), [](auto& c) { return c.running; });
  }

  void signal_all(int number) const {
    for (const Child& child : children_)
      if (child.running) ::kill(-child.pid, number);
  }

  void reap(int rank) {
    Child& child = children_[rank];
    int status = 0;
    if (!child.running || ::waitpid(child.pid, &status, WNOHANG) != child.pid) return;
    child.running = false;
    const bool killed = WIFSIGNALED(status);
    const int code = killed ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (code == 0) return;
    if (code_ == 0) code_ = code;
    if (failed_at_ || (asked_ != 0 && code == 128 + asked_)) return;
    failed_at_ = Clock::now();
    code_ = code;
    report(rank, code, killed);
  }

  void report(int rank, int code, bool killed) {
    log_ << "rank " << rank << " of " << children_.size() << " (pid " << children_[rank].pid
         << ") failed first: ";
    if (killed) {
      log_ << "killed by signal " << code - 128 << " (" << ::strsignal(code - 128) << ")";
    } else if (code == 127) {
      log_ << "exit code 127, " << options_.program << " could not be run";
    } else {
      log_ << "exit code " << code;
    }
    log_ << (running() > 0 ? "; the other ranks are stopped" : "") << std::endl;
  }

  /// SIGTERM after the grace, SIGKILL later, each once.
  void stop_after_failure() {
    if (!failed_at_) return;
    const auto since = Clock::now() - *failed_at_;
    if (stage_ == 0 && since > options_.grace) ++stage_, signal_all(SIGTERM);
    if (stage_ == 1 && since > options_.grace + options_.kill_after) ++stage_, signal_all(SIGKILL);
  }

  const SpawnOptions& options_;
  std::ostream& log_;
  std::vector<Child> children_;
  int asked_ = 0;  ///< the last signal that was passed on
  int code_ = 0;
  int stage_ = 0;
  std::optional<Clock::time_point> failed_at_;
};

/// Whether, and why not, ranks that ended with `code` are started again.
class RestartRule {
 public:
  explicit RestartRule(const Restarts& restarts)
      : restarts_(restarts), before_(restarts.most > 0 ? restarts.progress() : 0) {}

  bool again(int code, std::ostream& log) {
    if (restarts_.most == 0) return false;
    const int64_t now = restarts_.progress();
    const bool progress = now > before_, killed = code >= 128;
    if (done_ == restarts_.most) {
      log << "not restarted: " << done_ << " restarts were allowed (--max-restarts)" << std::endl;
    } else if (!progress && (!killed || idle_)) {
      log << "not restarted: no newer checkpoint since the "
          << (done_ > 0 ? "last restart" : "start") << ", it would fail again" << std::endl;
    } else {
      idle_ = !progress;
      before_ = now;
      log << "restart " << ++done_ << " of " << restarts_.most << ", from "
          << (now > 0 ? "step " + std::to_string(now) : "the beginning") << std::endl;
      return true;
    }
    return false;
  }

 private:
  const Restarts& restarts_;
  int64_t before_;
  int64_t done_ = 0;
  bool idle_ = false;  ///< the start before the last made no progress
};

}  // namespace

int spawn_local(int n, const std::vector<std::string>& argv, const SpawnOptions& options) {
  require(n >= 1, "local ranks: expected at least 1, got ", n, "; correct --nproc");
  require(!argv.empty(), "local ranks: expected a command line, got an empty one");
  const Restarts& restarts = options.restarts;
  StopRequests requests;
  RestartRule rule(restarts);
  for (bool first = true;; first = false) {
    Ranks ranks(options);
    ranks.start(n, first || restarts.argv.empty() ? argv : restarts.argv);
    const int code = ranks.wait(requests);
    std::ostream& log = options.log != nullptr ? *options.log : std::cerr;
    if (code == 0 || ranks.asked() || !rule.again(code, log)) return code;
  }
}

}  // namespace cosmos::trainer
