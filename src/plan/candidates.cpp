#include "plan/candidates.h"

#include <fmt/format.h>

namespace steelyard::plan {

namespace {

using facts::Job;
using facts::Sharding;

void set_sharding(Job& job, Sharding sharding) {
  job.parallel.sharding = sharding;
  job.parallel.shard_group.reset();
}

Candidate sharded(Sharding sharding, const char* what) {
  return {what,
          {{"parallel.sharding", std::string(facts::name_of(sharding))}},
          [sharding](Job& job) { set_sharding(job, sharding); }};
}

// Halves or doubles the micro-batch and keeps the global batch.
Candidate micro_batch(const Job& resolved, std::int64_t micro, const char* what) {
  const std::int64_t global = *resolved.train.global_batch;
  return {what,
          {{"train.micro_batch", fmt::format("{}", micro)},
           {"train.global_batch", fmt::format("{}", global)}},
          [micro, global](Job& job) {
            job.train.micro_batch = micro;
            job.train.global_batch = global;
            job.train.gradient_accumulation.reset();
          }};
}

bool shards_parameters(Sharding sharding) {
  return sharding != Sharding::none && sharding != Sharding::zero1 && sharding != Sharding::zero2;
}

}  // namespace

std::vector<Candidate> that_save_vram(const Job& resolved) {
  std::vector<Candidate> list;
  const facts::TrainKeys& train = resolved.train;
  if (train.attention == facts::Attention::math) {
    list.push_back({"use flash attention", {{"train.attention", "flash"}}, [](Job& job) {
                      job.train.attention = facts::Attention::flash;
                    }});
  }
  if (!train.optimizer.fused.value_or(false) &&
      train.optimizer.name == facts::OptimizerName::adamw) {
    list.push_back({"use the fused optimizer, which needs no temporary copy of the parameters",
                    {{"train.optimizer.fused", "true"}},
                    [](Job& job) {
                      job.train.optimizer.fused = true;
                      job.train.optimizer.foreach.reset();
                    }});
  }
  if (*resolved.parallel.data > 1 && !shards_parameters(resolved.parallel.sharding)) {
    list.push_back(resolved.parallel.sharding == Sharding::none
                       ? sharded(Sharding::fsdp, "shard parameters, gradients and optimizer (FSDP)")
                       : sharded(Sharding::zero3, "shard the parameters too (ZeRO-3)"));
  }
  if (resolved.parallel.sharding == Sharding::hsdp) {
    list.push_back(sharded(Sharding::fsdp, "shard over all ranks, not in each node"));
  }
  const bool pairs =
      train.objective == facts::Objective::dpo || train.objective == facts::Objective::kto;
  if (pairs && train.reference == facts::ReferenceUse::live) {
    list.push_back({"ask the reference once, before the run",
                    {{"train.reference", "precomputed"}},
                    [](Job& job) { job.train.reference = facts::ReferenceUse::precomputed; }});
  }
  if (train.recompute.mode == facts::RecomputeMode::none) {
    list.push_back({"recompute activations in the backward pass",
                    {{"train.recompute", "full"}},
                    [](Job& job) { job.train.recompute.mode = facts::RecomputeMode::full; }});
  }
  if (*train.micro_batch > 1) {
    list.push_back(
        micro_batch(resolved, *train.micro_batch / 2, "halve the micro-batch and accumulate more"));
    if (*train.micro_batch > 2) {
      list.push_back(micro_batch(resolved, 1, "micro-batches of one sample, accumulated"));
    }
  }
  if (train.optimizer.name == facts::OptimizerName::adamw &&
      resolved.parallel.sharding == Sharding::none) {
    list.push_back(
        {"keep optimizer states in 8 bits", {{"train.optimizer", "adamw8bit"}}, [](Job& job) {
           job.train.optimizer = {};
           job.train.optimizer.name = facts::OptimizerName::adamw8bit;
         }});
  }
  return list;
}

std::vector<Candidate> that_save_ram(const Job& resolved) {
  std::vector<Candidate> list;
  if (resolved.checkpoint.load == facts::CheckpointLoad::per_rank ||
      resolved.checkpoint.load == facts::CheckpointLoad::rank0) {
    list.push_back({"load the checkpoint by mapping the file",
                    {{"checkpoint.load", "mmap"}},
                    [](Job& job) { job.checkpoint.load = facts::CheckpointLoad::mmap; }});
  }
  if (resolved.checkpoint.method != facts::CheckpointMethod::sharded_sync) {
    list.push_back(
        {"save the checkpoint in shards, each rank its own",
         {{"checkpoint.method", "sharded-sync"}},
         [](Job& job) { job.checkpoint.method = facts::CheckpointMethod::sharded_sync; }});
  }
  if (*resolved.data.workers > 1) {
    const std::int64_t fewer = *resolved.data.workers / 2;
    list.push_back({"halve the loader workers",
                    {{"data.workers", fmt::format("{}", fewer)}},
                    [fewer](Job& job) { job.data.workers = fewer; }});
  }
  if (resolved.data.cache == facts::DataCache::ram) {
    list.push_back({"leave caching to the page cache", {{"data.cache", "page"}}, [](Job& job) {
                      job.data.cache = facts::DataCache::page;
                    }});
  }
  return list;
}

std::vector<Candidate> that_gain_speed(const facts::Plan& planned) {
  std::vector<Candidate> list;
  const Job& job = planned.job;
  if (job.train.recompute.mode == facts::RecomputeMode::full) {
    list.push_back({"stop recomputing: the activations have room",
                    {{"train.recompute", "none"}},
                    [](Job& changed) { changed.train.recompute = {}; }});
  }
  const std::int64_t accumulation = *job.train.gradient_accumulation;
  if (accumulation % 2 == 0) {
    list.push_back(
        micro_batch(job, *job.train.micro_batch * 2, "double the micro-batch and accumulate less"));
  }
  if (!planned.feed.limited_by.empty() && *job.data.workers > 0) {
    const std::int64_t more = *job.data.workers * 2;
    list.push_back({"double the loader workers",
                    {{"data.workers", fmt::format("{}", more)}},
                    [more](Job& changed) { changed.data.workers = more; }});
  }
  if (!job.train.optimizer.fused.value_or(false) &&
      job.train.optimizer.name == facts::OptimizerName::adamw) {
    list.push_back(
        {"use the fused optimizer", {{"train.optimizer.fused", "true"}}, [](Job& changed) {
           changed.train.optimizer.fused = true;
           changed.train.optimizer.foreach.reset();
         }});
  }
  return list;
}

}  // namespace steelyard::plan
