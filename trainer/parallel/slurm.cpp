#include "trainer/parallel/slurm.h"

#include <regex>

#include "ops/core/error.h"

namespace cosmos::trainer {

std::string first_slurm_host(const std::string& nodelist) {
  std::string host;
  for (std::size_t i = 0; i < nodelist.size() && nodelist[i] != ','; ++i) {
    if (nodelist[i] != '[') {
      host += nodelist[i];
      continue;
    }
    // The first of the bracket's numbers, with its leading zeros.
    const std::size_t close = nodelist.find(']', i);
    const std::size_t end = nodelist.find_first_of("-,]", i);
    require(close != std::string::npos && end > i + 1, "Slurm node list: expected NAME[1-3,5], ",
            "got \"", nodelist, "\"; set MASTER_ADDR to the host of rank 0");
    host.append(nodelist, i + 1, end - i - 1);
    i = close;
  }
  require(!host.empty(), "Slurm node list: expected host names, got \"", nodelist,
          "\"; set MASTER_ADDR to the host of rank 0");
  return host;
}

std::vector<int64_t> slurm_tasks_per_node(const std::string& text) {
  static const std::regex whole(R"(\d{1,6}(\(x\d{1,6}\))?(,\d{1,6}(\(x\d{1,6}\))?)*)");
  static const std::regex part(R"((\d+)(?:\(x(\d+)\))?)");
  require(std::regex_match(text, whole), "Slurm tasks per node: expected a list like 4(x2),3, ",
          "got \"", text, "\"; set LOCAL_RANK and the other torchrun variables by hand");
  std::vector<int64_t> tasks;
  for (std::sregex_iterator it(text.begin(), text.end(), part), end; it != end; ++it) {
    const int64_t repeats = (*it)[2].matched ? std::stoll((*it)[2]) : 1;
    tasks.insert(tasks.end(), repeats, std::stoll((*it)[1]));
  }
  return tasks;
}

}  // namespace cosmos::trainer
