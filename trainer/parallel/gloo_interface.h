#pragma once

#include <string>

#include "trainer/parallel/rank_env.h"

namespace cosmos::trainer {

/// The address of this machine at which the other ranks reach it: that of the interface that leads
/// to rank 0, and loopback when all are on this machine. Not what the host's name resolves to: on
/// Debian that is 127.0.1.1, which other machines cannot use. Throws Error when there is none.
std::string address_towards_rank_0(const RankEnv& env);

}  // namespace cosmos::trainer
