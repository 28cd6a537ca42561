#pragma once

// A server on this machine that answers each request as the test says.

#include <arpa/inet.h>
#include <catch2/catch.hpp>
#include <functional>
#include <netinet/in.h>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

namespace cosmos::test {

/// `answer(head, body)` gives status line and body, "200 OK\n{...}"; one request a connection.
class HttpServer {
 public:
  using Handler = std::function<std::string(const std::string& head, const std::string& body)>;

  explicit HttpServer(Handler answer) : answer_(std::move(answer)) {
    socket_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
    socklen_t size = sizeof(address);
    ::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    REQUIRE(::listen(socket_, 16) == 0);
    thread_ = std::thread([this] { serve(); });
  }
  ~HttpServer() {
    ::shutdown(socket_, SHUT_RDWR);
    thread_.join();
    ::close(socket_);
  }
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }

 private:
  void serve() {
    for (int client; (client = ::accept(socket_, nullptr, nullptr)) >= 0; ::close(client)) {
      std::string text;
      std::size_t wanted = std::string::npos, head = 0;
      char part[65536];
      while (text.size() < wanted) {
        const ssize_t count = ::read(client, part, sizeof(part));
        if (count <= 0) break;
        text.append(part, static_cast<std::size_t>(count));
        const std::size_t end = text.find("\r\n\r\n"), length = text.find("Content-Length: ");
        if (wanted == std::string::npos && end != std::string::npos) {
          head = end + 4;
          wanted = head + (length < end ? std::stoul(text.substr(length + 16)) : 0);
        }
      }
      const std::string said = answer_(text.substr(0, head), text.substr(head));
      const std::size_t line = said.find('\n');
      const std::string body = said.substr(line + 1);
      const std::string reply =
          "HTTP/1.1 " + said.substr(0, line) +
          "\r\nConnection: close\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
          body;
      (void)!::write(client, reply.data(), reply.size());
    }
  }

  Handler answer_;
  int socket_ = -1;
  int port_ = 0;
  std::thread thread_;
};

}  // namespace cosmos::test
