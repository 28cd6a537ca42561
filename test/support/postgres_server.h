#pragma once

// A PostgreSQL server of a test's own, from Debian's package.

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <unistd.h>

#include "test/support/program.h"
#include "test/support/temp_folder.h"

namespace cosmos::test {

/// In a temporary folder, reached through a socket there; gone at the end. It keeps nothing through
/// a loss of power (fsync is off): clients are what is killed here.
class PostgresServer {
 public:
  PostgresServer() {
    const std::string missing =
        "PostgreSQL's server is missing: package postgresql (tools/setup.sh)";
    const Answer found = shell("ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1");
    INFO(missing);
    REQUIRE(found.text.size() > 1);
    bin_ = found.text.substr(0, found.text.size() - 1) + "/";
    if (::geteuid() == 0) {  // the server refuses to run as root
      user_ = "runuser -u postgres -- ";
      REQUIRE(shell("chown postgres " + folder_.path().string()).code == 0);
    }
    const Answer made = shell(user_ + bin_ + "initdb -D " + data() +
                              " -U postgres -A trust -E UTF8 --locale=C --no-sync");
    INFO(made.text);
    REQUIRE(made.code == 0);
    const Answer started =
        shell(user_ + bin_ + "pg_ctl -D " + data() + " -w -l " + (folder_ / "log").string() +
              " -o \"-k " + folder_.path().string() +
              " -c listen_addresses='' -c fsync=off\" start >/dev/null");
    INFO(started.text);
    REQUIRE(started.code == 0);
    running_ = true;
  }
  ~PostgresServer() {
    if (running_) shell(user_ + bin_ + "pg_ctl -D " + data() + " -m immediate stop");
  }
  PostgresServer(const PostgresServer&) = delete;
  PostgresServer& operator=(const PostgresServer&) = delete;

  /// What a client connects to.
  std::string url(const std::string& database) const {
    return "postgresql:///" + database + "?host=" + folder_.path().string() + "&user=postgres";
  }
  void make(const std::string& database) const { ask("postgres", "CREATE DATABASE " + database); }
  /// What psql prints for a statement.
  std::string ask(const std::string& database, const std::string& sql) const {
    const Answer answer = shell(bin_ + "psql -qtA '" + url(database) + "' -c \"" + sql + "\"");
    INFO(answer.text);
    REQUIRE(answer.code == 0);
    return answer.text;
  }

 private:
  std::string data() const { return (folder_ / "data").string(); }

  TempFolder folder_;
  std::string bin_, user_;
  bool running_ = false;
};

}  // namespace cosmos::test
