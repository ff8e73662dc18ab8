// A request of the ram room that tests change one figure at a time: a model of 1e9 parameters, ZeRO
// or FSDP over all ranks of one node, image batches of 1 MiB per sample.
#pragma once

#include "ram/ram.h"

namespace steelyard::ram::testing {

struct Example {
  facts::Job job;
  facts::Machine machine;
  step::StateSizes states;
  facts::HostConstants constants;
  Bytes sample_bytes = Bytes(1 << 20);
  Bytes offloaded_activations;
  std::map<std::string, std::string, std::less<>> words;
  std::optional<facts::VramBytes> tensors;

  Example() {
    job.machine.gpus = 8;
    job.machine.nodes = 1;
    job.train.micro_batch = 16;
    job.train.gradient_accumulation = 1;
    job.parallel.data = 8;
    job.data.kind = facts::DataKind::jpeg;
    job.data.workers = 4;
    job.data.layout = facts::DataLayout::tar;
    job.checkpoint.every_steps = 1000;

    states.parameters = Parameters(1'000'000'000);
    states.trainable = states.parameters;
    states.parameter_bytes = states.made_bytes = states.trainable_bytes = Bytes(4'000'000'000);
    states.gradient_bytes = Bytes(4'000'000'000);
    states.optimizer_bytes = Bytes(8'000'000'000);
    states.largest_block_bytes = Bytes(100'000'000);
    states.batch_bytes = sample_bytes * 16;

    constants.system = Bytes(4'000'000'000);
    constants.process = Bytes(3'000'000'000);
    constants.loader_worker = Bytes(300'000'000);
    constants.index_per_sample = Bytes(174);
    constants.largest_checkpoint_shard = Bytes(5'000'000'000);
    constants.shared_memory_segment = Bytes(9'637'888);
    constants.shared_memory_channels = 2;

    machine.gpus = 8;
    machine.gpu.link = {BytesPerSecond(450e9), facts::Provenance::catalogue};
    machine.host.memory = {Bytes(std::int64_t{2} << 40), facts::Provenance::catalogue};
  }

  [[nodiscard]] Result<facts::RamPlan> plan() const {
    return host_memory({.job = &job,
                        .machine = &machine,
                        .states = &states,
                        .constants = &constants,
                        .sample_bytes = sample_bytes,
                        .offloaded_activations = offloaded_activations,
                        .paged_states = Bytes(),
                        .words = &words,
                        .tensors = tensors});
  }

  void set_parameters(std::int64_t parameters, std::int64_t width, bool short_with_master) {
    states.parameters = states.trainable = Parameters(parameters);
    states.parameter_bytes = states.made_bytes = states.trainable_bytes = Bytes(parameters * width);
    states.gradient_bytes = states.parameter_bytes;
    states.optimizer_bytes = Bytes(parameters * (short_with_master ? 12 : 8));
    job.train.optimizer.master_weights = short_with_master;
  }
};

inline const facts::RamBytes& phase(const facts::RamPlan& plan, facts::RamPhase which) {
  return plan.phases[static_cast<std::size_t>(which)];
}

}  // namespace steelyard::ram::testing
