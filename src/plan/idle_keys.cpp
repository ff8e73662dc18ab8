#include "plan/idle_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace steelyard::plan {

namespace {

using facts::Job;
using facts::OffloadTo;
using facts::Sharding;
using model::Graph;

// When a key does nothing, and why.
struct Rule {
  std::string_view key;
  bool (*idle)(const Job&, const Graph&);
  std::string_view because;
};

bool one_tensor_rank(const Job& job, const Graph&) {
  return job.parallel.tensor == 1;
}
bool one_stage(const Job& job, const Graph&) {
  return job.parallel.pipeline == 1;
}
bool one_context_rank(const Job& job, const Graph&) {
  return job.parallel.context == 1;
}
bool trains_in_full(const Job& job, const Graph&) {
  return job.train.method == facts::Method::full;
}
bool not_fp8(const Job& job, const Graph&) {
  return job.train.precision != facts::Precision::fp8_mixed &&
         job.train.precision != facts::Precision::mxfp8_mixed &&
         job.train.precision != facts::Precision::nvfp4_mixed;
}
bool no_second_model(const Job& job, const Graph&) {
  return job.train.objective == facts::Objective::sft;
}
bool gathers_nothing(const Job& job, const Graph&) {
  const Sharding sharding = job.parallel.sharding;
  return sharding != Sharding::fsdp && sharding != Sharding::fsdp1 && sharding != Sharding::hsdp;
}
bool shards_nothing(const Job& job, const Graph&) {
  return job.parallel.sharding == Sharding::none && !job.megatron;
}
bool no_flat_buckets(const Job& job, const Graph&) {
  const Sharding sharding = job.parallel.sharding;
  return sharding != Sharding::zero1 && sharding != Sharding::zero2 && sharding != Sharding::zero3;
}
bool no_experts(const Job&, const Graph& graph) {
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      const bool found = std::ranges::any_of(block.weights, &model::Weight::expert);
      if (found) return false;
    }
  }
  return true;
}
bool no_decoder(const Job&, const Graph& graph) {
  const auto decodes = [](const model::Operator& op) {
    return op.kind == model::OperatorKind::attention && op.attention.causal;
  };
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      if (std::ranges::any_of(block.operators, decodes)) return false;
    }
  }
  return true;
}
bool nothing_offloaded(const Job& job, const Graph&) {
  const facts::OffloadKeys& offload = job.offload;
  return offload.parameters == OffloadTo::none && offload.optimizer == OffloadTo::none &&
         offload.activations == OffloadTo::none && offload.gradients == OffloadTo::none;
}
bool nothing_stepped_there(const Job& job, const Graph&) {
  return job.offload.optimizer == OffloadTo::none;
}
bool nothing_swapped(const Job& job, const Graph&) {
  return job.offload.optimizer != OffloadTo::nvme;
}
bool caches_no_rows(const Job& job, const Graph&) {
  return job.offload.embeddings != facts::EmbeddingOffload::uvm_caching;
}
bool caches_nothing(const Job& job, const Graph&) {
  const facts::DataCache cache = job.data.cache;
  return cache != facts::DataCache::ram && cache != facts::DataCache::ram_encoded;
}
bool no_workers(const Job& job, const Graph&) {
  return job.data.workers.value_or(1) == 0;
}
bool nothing_to_decode(const Job& job, const Graph&) {
  return job.data.kind == facts::DataKind::synthetic;
}
bool free_ranks(const Job& job, const Graph&) {
  return !job.machine.numa_binding;
}

bool no_reduce_buckets(const Job& job, const Graph&) {
  const facts::Sharding sharding = job.parallel.sharding;
  return sharding != facts::Sharding::zero1 && sharding != facts::Sharding::zero2;
}
bool no_zero3(const Job& job, const Graph&) {
  return job.parallel.sharding != facts::Sharding::zero3;
}
bool recomputes_nothing(const Job& job, const Graph&) {
  return job.train.recompute.mode == facts::RecomputeMode::none;
}

constexpr std::array kRules = {
    Rule{"parallel.sequence_parallel", one_tensor_rank, "parallel.tensor is 1"},
    Rule{"parallel.schedule", one_stage, "parallel.pipeline is 1"},
    Rule{"parallel.virtual_stages", one_stage, "parallel.pipeline is 1"},
    Rule{"parallel.context_method", one_context_rank, "parallel.context is 1"},
    Rule{"parallel.reshard_after_forward", gathers_nothing,
         "parallel.sharding is none of fsdp, fsdp1 and hsdp"},
    Rule{"parallel.shard_group", shards_nothing, "parallel.sharding is none"},
    Rule{"parallel.buckets.all_gather", no_flat_buckets, "they are those of ZeRO-1, -2 and -3"},
    Rule{"parallel.buckets.reduce", no_flat_buckets, "they are those of ZeRO-1, -2 and -3"},
    Rule{"parallel.buckets.overlap", no_reduce_buckets, "they are those of ZeRO-1 and -2"},
    Rule{"parallel.memory_efficient_linear", no_zero3, "parallel.sharding is not zero3"},
    Rule{"train.use_reentrant", recomputes_nothing, "train.recompute is none"},
    Rule{"parallel.expert_imbalance", no_experts, "the model has no experts"},
    Rule{"parallel.expert_capacity", no_experts, "the model has no experts"},
    Rule{"train.use_cache", no_decoder, "the model has no layers that decode"},
    Rule{"train.fp8.recipe", not_fp8, "train.precision is no fp8 type"},
    Rule{"train.fp8.all_gather", not_fp8, "train.precision is no fp8 type"},
    Rule{"train.reference", no_second_model, "train.objective is sft"},
    Rule{"offload.pin_memory", nothing_offloaded, "nothing is offloaded"},
    Rule{"offload.pipelined", nothing_swapped, "offload.optimizer is not nvme"},
    Rule{"offload.host_threads", nothing_stepped_there, "offload.optimizer is none"},
    Rule{"offload.embedding_hits", caches_no_rows, "offload.embeddings is not uvm-caching"},
    Rule{"data.cache_shared", caches_nothing, "data.cache is neither ram nor ram-encoded"},
    Rule{"data.prefetch", no_workers, "data.workers is 0"},
    Rule{"data.worker_start", no_workers, "data.workers is 0"},
    Rule{"data.decode", nothing_to_decode, "the samples are made on the spot"},
    Rule{"machine.numa_memory", free_ranks, "machine.numa_binding is false"},
};

// Given by a person, and not as nothing would say it.
bool given(const Job& job, std::string_view key) {
  const auto found = job.origins.find(std::string(key));
  return found != job.origins.end() && found->second.origin == facts::Origin::job;
}

}  // namespace

std::vector<std::string> idle_keys(const Job& job, const Graph& graph) {
  std::vector<std::string> sentences;
  for (const Rule& rule : kRules) {
    if (given(job, rule.key) && rule.idle(job, graph)) {
      sentences.push_back(fmt::format("the key {} changes nothing: {}", rule.key, rule.because));
    }
  }
  const auto& fused = job.train.fused_kernels;
  const bool adapters = std::ranges::find(fused, facts::FusedKernel::lora) != fused.end();
  if (adapters && trains_in_full(job, graph)) {
    sentences.push_back(
        "the key train.fused_kernels changes nothing with lora: train.method is full");
  }
  return sentences;
}

}  // namespace steelyard::plan
