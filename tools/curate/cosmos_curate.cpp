// cosmos-curate: raw video in, a training set out. README.md says how.

#include <cxxopts.hpp>
#include <iostream>
#include <unistd.h>

#include "tools/curate/curate.h"
#include "tools/program.h"

namespace {

using namespace cosmos;

constexpr const char* kHelp = R"(
CONFIG.json names inputs, an output folder and what to keep (tools/curate/README.md, an example in
configs/curate/). A run that was stopped, by kill -9 too, goes on when it is started again.)";

int run(int argc, char** argv) {
  cxxopts::Options options("cosmos-curate", "Raw video in, a training set out.");
  options.custom_help("CONFIG.json");
  auto add = options.add_options();
  add("check", "read and check the config, print it with every default, do nothing");
  add("config", "the settings", cxxopts::value<std::string>()->default_value(""), "FILE");
  add("h,help", "this text");
  options.parse_positional({"config"});
  const auto parsed = options.parse(argc, argv);
  if (parsed.count("help")) return std::cout << options.help() << kHelp << '\n', 0;
  const std::string file = tools::parse_usage([&] {
    require(parsed.unmatched().empty(), "expected one CONFIG.json, got more");
    require(!parsed["config"].as<std::string>().empty(), "CONFIG.json is missing");
    return parsed["config"].as<std::string>();
  });
  const curate::Config config = curate::load_config(file);
  if (parsed.count("check")) {
    std::cout << modules::write_fields(config).dump(2) << '\n';
    return 0;
  }
  curate::curate(config, std::cout, isatty(STDOUT_FILENO));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cosmos::tools::run_program("cosmos-curate", argc, argv, run);
}
