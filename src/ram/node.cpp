#include "ram/node.h"

#include <algorithm>

namespace steelyard::ram {
namespace {

Error absent(const char* key) {
  return Error{.code = ErrorCode::missing_value,
               .subject = key,
               .found = "nothing",
               .accepted = "a whole number",
               .hint = std::string("set ") + key + " in the job",
               .file = "",
               .line = std::nullopt};
}

std::int64_t sharding_ranks(const facts::Job& job) {
  if (job.parallel.sharding == facts::Sharding::none) return 1;
  return std::max<std::int64_t>(1,
                                job.parallel.shard_group.value_or(job.parallel.data.value_or(1)));
}

}  // namespace

Result<Node> node_of(const Request& request) {
  if (request.job == nullptr || request.machine == nullptr || request.states == nullptr ||
      request.constants == nullptr) {
    return fail(Error{.code = ErrorCode::internal,
                      .subject = "ram::Request",
                      .found = "a null pointer",
                      .accepted = "job, machine, states and constants",
                      .hint = "",
                      .file = "",
                      .line = std::nullopt});
  }
  const facts::Job& job = *request.job;
  if (!job.machine.gpus) return fail(absent("machine.gpus"));
  if (!job.train.micro_batch) return fail(absent("train.micro_batch"));
  Node node{.job = job,
            .machine = *request.machine,
            .states = *request.states,
            .constants = *request.constants};
  node.ranks = std::max<std::int64_t>(1, *job.machine.gpus);
  node.nodes = std::max<std::int64_t>(1, job.machine.nodes);
  node.model_parallel = checked_multiply(std::max<std::int64_t>(1, job.parallel.tensor),
                                         std::max<std::int64_t>(1, job.parallel.pipeline));
  node.shards = sharding_ranks(job);
  const bool synthetic = job.data.kind == facts::DataKind::synthetic;
  node.workers = synthetic ? 0 : std::max<std::int64_t>(0, job.data.workers.value_or(0));
  node.batch = request.sample_bytes * std::max<std::int64_t>(1, *job.train.micro_batch);
  return node;
}

}  // namespace steelyard::ram
