#include "ram/node.h"

#include <algorithm>
#include <charconv>

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

std::string_view word_of(const Request& request, std::string_view composite) {
  if (request.words == nullptr) return {};
  const auto found = request.words->find(composite);
  return found == request.words->end() ? std::string_view() : std::string_view(found->second);
}

// A size in MiB that a profile gives as a word.
Bytes mebibytes_of(const Request& request, std::string_view composite, Bytes otherwise) {
  const std::string_view word = word_of(request, composite);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (word.empty() || error != std::errc() || value < 0) return otherwise;
  return Bytes(checked_multiply(value, std::int64_t{1} << 20));
}

// A share that a profile gives as a word.
Ratio ratio_of(const Request& request, std::string_view composite, Ratio otherwise) {
  const std::string_view word = word_of(request, composite);
  double value = 0.0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  return error == std::errc() && value > 0.0 ? Ratio(value) : otherwise;
}

// Without a card there is no CUDA, whose host side is most of a training process.
void read_process(const Request& request, Node& node) {
  node.loading = word_of(request, "loading");
  const facts::DataKeys& data = node.job.data;
  const bool forked = data.worker_start == facts::WorkerStart::fork;
  node.worker = mebibytes_of(request, forked ? "loader_worker_mib" : "loader_worker_spawned_mib",
                             node.constants.loader_worker);
  node.threads = word_of(request, "loaders") == "threads";
  node.borrows_rules = word_of(request, "host_rules") == "pytorch";
  node.load_copies = ratio_of(request, "load_copies", Ratio(1.0));
  node.staging_copies = ratio_of(request, "staging_copies", Ratio());
  const bool pictures = data.kind == facts::DataKind::jpeg || data.kind == facts::DataKind::png;
  const bool decodes = data.cache != facts::DataCache::ram && data.decode != facts::DecodeOn::gpu;
  if (pictures && decodes) {
    node.worker += mebibytes_of(request, "loader_decoder_mib", Bytes());
  }
  node.process = node.constants.process;
  node.process_source = word_of(request, "device_process_source");
  if (word_of(request, "device_process_from") == "assumed") {
    node.process_from = Provenance::assumed;
  }
  node.tensors = request.tensors;
  if (!node.tensors) return;
  node.process_from = Provenance::measured;
  node.process_source = "validation/record_ram.py, validation/measure_process.py";
  node.process = mebibytes_of(request, "host_process_mib", node.constants.process);
  node.libraries = mebibytes_of(request, "host_libraries_mib", Bytes());
  node.steps = mebibytes_of(request, "host_steps_mib", Bytes());
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
  Bytes sample = request.sample_bytes;
  if (job.data.decode == facts::DecodeOn::gpu && job.data.bytes_per_sample) {
    sample = Bytes(checked_round(*job.data.bytes_per_sample));  // handed over as it is stored
  }
  node.batch = sample * std::max<std::int64_t>(1, *job.train.micro_batch);
  read_process(request, node);
  return node;
}

}  // namespace steelyard::ram
