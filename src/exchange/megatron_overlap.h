// What arguments leave out that are no whole command line: switches that change when something is
// done and not what, and that the runs which such rows describe set (catalog/import/megatron.toml,
// [description]).
#pragma once

#include <string>
#include <vector>

#include "exchange/megatron_arguments.h"
#include "facts/job.h"

namespace steelyard::exchange {

// Those that count as on although they are not given. None of a whole command line, of forks of
// Megatron-LM or where another engine holds the states: these have other switches. `job`: as far as
// its layout; `keys`: with who holds the states.
[[nodiscard]] std::vector<std::string> overlap_assumed_of(const MegatronArguments& arguments,
                                                          const facts::Job& job,
                                                          const facts::MegatronKeys& keys);

}  // namespace steelyard::exchange
