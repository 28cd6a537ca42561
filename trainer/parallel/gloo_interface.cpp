#include "trainer/parallel/gloo_interface.h"

#include <ifaddrs.h>
#include <memory>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ops/core/error.h"

namespace cosmos::trainer {
namespace {

std::string numeric(const sockaddr* address, socklen_t length) {
  char host[NI_MAXHOST] = "";
  ::getnameinfo(address, length, host, sizeof(host), nullptr, 0, NI_NUMERICHOST);
  return host;
}

bool is_loopback(const std::string& address) {
  return address.starts_with("127.") || address == "::1";
}

/// The local end of a route to `to`; connecting a datagram socket sends nothing.
std::string route_to(const addrinfo& to) {
  const int fd = ::socket(to.ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_storage local{};
  socklen_t length = sizeof(local);
  const bool found = fd >= 0 && ::connect(fd, to.ai_addr, to.ai_addrlen) == 0 &&
                     ::getsockname(fd, reinterpret_cast<sockaddr*>(&local), &length) == 0;
  if (fd >= 0) ::close(fd);
  return found ? numeric(reinterpret_cast<sockaddr*>(&local), length) : "";
}

std::string route_to(const std::string& host, int64_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* list = nullptr;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
  require(error == 0, "MASTER_ADDR: expected a host that resolves, got \"", host,
          "\": ", ::gai_strerror(error), "; give rank 0's address");
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(list, ::freeaddrinfo);
  for (const addrinfo* to = list; to != nullptr; to = to->ai_next)
    if (std::string local = route_to(*to); !local.empty()) return local;
  return "";
}

/// The first IPv4 address of an interface that is up and not loopback.
std::string any_outside() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return "";
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(list, ::freeifaddrs);
  for (const ifaddrs* i = list; i != nullptr; i = i->ifa_next) {
    const bool usable = i->ifa_addr != nullptr && i->ifa_addr->sa_family == AF_INET &&
                        (i->ifa_flags & IFF_UP) != 0 && (i->ifa_flags & IFF_LOOPBACK) == 0;
    if (usable) return numeric(i->ifa_addr, sizeof(sockaddr_in));
  }
  return "";
}

}  // namespace

std::string address_towards_rank_0(const RankEnv& env) {
  if (env.local_world == env.world) return "127.0.0.1";
  std::string address = route_to(env.master_addr, env.master_port);
  // On rank 0's own machine its name may resolve to loopback, which the others cannot reach.
  if (is_loopback(address) && !is_loopback(env.master_addr)) address = any_outside();
  require(!address.empty(), "Gloo: expected a network interface towards ", env.master_addr,
          ", got none; set GLOO_SOCKET_IFNAME to the interface's name");
  return address;
}

}  // namespace cosmos::trainer
