#include "exchange/megatron_overlap.h"

namespace steelyard::exchange {

std::vector<std::string> overlap_assumed_of(const MegatronArguments& arguments,
                                            const facts::Job& job,
                                            const facts::MegatronKeys& keys) {
  std::vector<std::string> assumed;
  if (!keys.gradient_buffer || job.versions.find("megatron-deepspeed") != nullptr) return assumed;
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
