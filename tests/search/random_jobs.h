// Random small jobs and the spaces of their layouts.
#pragma once

#include <array>
#include <initializer_list>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "search/own_planner.h"
#include "search/space.h"

namespace steelyard::search {

// A small model, wide enough to be cut in several ways; some keys are given, the rest is free.
struct RandomJob {
  facts::Job job;
  facts::Machine machine;
  std::vector<std::string> free{};

  explicit RandomJob(std::mt19937& random) {
    const auto pick = [&](std::initializer_list<std::int64_t> values) {
      return *(values.begin() + static_cast<std::ptrdiff_t>(random() % values.size()));
    };
    const auto give = [&](const char* key) { job.origins[key].origin = facts::Origin::job; };
    const bool experts = random() % 4 == 0;
    facts::Object config{
        {"model_type", experts ? "mixtral" : "llama"}, {"hidden_size", pick({256, 512})},
        {"num_hidden_layers", pick({2, 3, 4})},        {"num_attention_heads", 8},
        {"num_key_value_heads", pick({4, 8})},         {"intermediate_size", 1024},
        {"vocab_size", pick({1000, 32000})},           {"tie_word_embeddings", random() % 2 == 0}};
    if (experts) {
      config.emplace_back("num_local_experts", 4);
      config.emplace_back("num_experts_per_tok", 2);
    }
    job.model.config = facts::Value(std::move(config));
    const std::array frameworks = {"pytorch", "megatron", "deepspeed"};
    job.framework = frameworks[random() % frameworks.size()];
    job.train.sequence_length = pick({512, 1024});
    job.train.global_batch = pick({8, 16});
    job.data.kind = facts::DataKind::tokens;
    job.machine.gpu = "l40s";
    job.machine.gpus = pick({1, 2, 4});
    if (random() % 4 == 0) {
      job.machine.nodes = 2;
      job.machine.gpus = 2;
      job.machine.network_gbps_per_gpu = 100.0;
    }
    job.machine.ram_gib = 256.0;
    // Cards so small that some layouts do not fit.
    job.machine.vram_gib = 1.0 + 0.25 * static_cast<double>(random() % 24);
    // One of these now and then; free together they would make a space too large for the plain way.
    const std::array words = {"offload", "precision", "data.workers"};
    if (random() % 3 == 0) free = keys_named(words[random() % words.size()]);
    for (const char* key : {"offload.parameters", "offload.gradients", "offload.optimizer",
                            "offload.activations", "data.workers"}) {
      give(key);
    }
    // Half of the keys are free: spaces of some dozen layouts.
    for (const char* key : {"parallel.context", "parallel.virtual_stages", "parallel.tensor",
                            "parallel.sequence_parallel", "train.recompute", "parallel.pipeline",
                            "parallel.sharding", "train.micro_batch", "parallel.expert"}) {
      if (random() % 2 == 0 || (!free.empty() && random() % 2 == 0)) give(key);
    }
    machine = plan::value_of(plan::own_catalog().machine_of(job, {}));
  }
};

inline SearchQuestion question_of(const RandomJob& one, const facts::Plan& planned, bool bounded) {
  SearchQuestion question{.job = &one.job,
                          .planned = &planned,
                          .places = {{"l40s", one.machine, one.job.machine.nodes}},
                          .free = one.free,
                          .shardings = own_shardings(one.job)};
  if (bounded) question.bounds = own_bounds;
  if (bounded) question.siblings = own_siblings;
  return question;
}

inline Freedom freedom_of(const RandomJob& one, const facts::Plan& planned) {
  return {.keys = one.free,
          .shardings = own_shardings(one.job),
          .experts = planned.model.active_parameters < planned.model.parameters};
}

inline Space space_of(const RandomJob& one, const facts::Plan& planned) {
  const std::int64_t each = *one.job.machine.gpus;
  return {one.job, one.job.machine.nodes * each, each, *one.job.train.global_batch,
          freedom_of(one, planned)};
}

}  // namespace steelyard::search
