#include "exchange/megatron_overlap.h"

#include <algorithm>

namespace steelyard::exchange {

std::vector<std::string> overlap_assumed_of(const MegatronArguments& arguments,
                                            const facts::Job& job,
                                            const facts::MegatronKeys& keys) {
  std::vector<std::string> assumed;
  const auto runs = [&job](const std::string& engine) {
    return job.versions.find(engine) != nullptr;
  };
  if (!keys.gradient_buffer || std::ranges::any_of(arguments.other_engines(), runs)) return assumed;
  const auto assume = [&](const char* name, bool has_use) {
    if (has_use && arguments.assumed(name)) assumed.emplace_back(name);
  };
  const auto async = job.origins.find("parallel.async_tensor");
  const bool own = async != job.origins.end() && async->second.origin == facts::Origin::job;
  assume("overlap-grad-reduce", true);
  assume("overlap-param-gather", keys.distributed_optimizer);
  assume("tp-comm-overlap", job.parallel.sequence_parallel && !own);
  return assumed;
}

}  // namespace steelyard::exchange
