// The same promise as compact_replay_test.cpp, over all that changes what a step allocates:
// methods, losses, recomputation, offload, allocator settings, experts, context ranks, every
// framework.
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "model/model.h"
#include "plan/random_jobs.h"
#include "plan/resolve.h"
#include "step/step.h"
#include "vram/vram.h"

namespace steelyard::plan {
namespace {

using facts::Job;

constexpr int kDrawn = 700;  // some of which no framework builds
constexpr int kLeast = 500;

struct Feature {
  const char* name;
  std::function<void(Job&)> set;
};

facts::AllocatorConf conf_of(bool expandable, std::int64_t divisions,
                             std::optional<Bytes> split = {}) {
  facts::AllocatorConf conf;
  conf.expandable_segments = expandable;
  conf.roundup_power2_divisions = divisions;
  conf.max_split_size = split;
  return conf;
}

// Half of its linears become experts: Mixtral's block.
void add_experts(Job& job) {
  facts::Value config = std::get<facts::Value>(job.model.config);
  if (*config.find("model_type")->as_text() == "gpt2") return;
  config.set("model_type", "mixtral");
  config.set("num_local_experts", 4);
  config.set("num_experts_per_tok", 2);
  job.model.config = config;
}

const std::vector<Feature>& features() {
  using enum facts::Sharding;
  static const std::vector<Feature> kAll = {
      {"lora", [](Job& j) { j.train.method = facts::Method::lora; }},
      {"qlora",
       [](Job& j) {
         j.train.method = facts::Method::qlora;
         j.train.base_quantization = facts::BaseQuantization::nf4;
       }},
      {"chunked loss", [](Job& j) { j.train.loss = facts::Loss::chunked; }},
      {"fused loss", [](Job& j) { j.train.loss = facts::Loss::fused; }},
      {"compile", [](Job& j) { j.train.compile = true; }},
      {"selective", [](Job& j) { j.train.recompute.mode = facts::RecomputeMode::selective; }},
      {"selective-op", [](Job& j) { j.train.recompute.mode = facts::RecomputeMode::selective_op; }},
      {"every second",
       [](Job& j) {
         j.train.recompute.mode = facts::RecomputeMode::full;
         j.train.recompute.every = 2;
       }},
      {"one block",
       [](Job& j) {
         j.train.recompute.mode = facts::RecomputeMode::full;
         j.train.recompute.layers = 1;
         j.train.recompute.method = facts::RecomputeMethod::block;
       }},
      {"fused optimizer", [](Job& j) { j.train.optimizer.fused = true; }},
      {"loop optimizer", [](Job& j) { j.train.optimizer.foreach = false; }},
      {"in backward",
       [](Job& j) {
         j.train.optimizer.in_backward = true;
         j.train.gradient_accumulation = 1;
         j.train.gradient_clipping = false;
       }},
      {"no clipping", [](Job& j) { j.train.gradient_clipping = false; }},
      {"expandable", [](Job& j) { j.train.allocator = conf_of(true, 0); }},
      {"divisions", [](Job& j) { j.train.allocator = conf_of(false, 4); }},
      {"split size", [](Job& j) { j.train.allocator = conf_of(false, 0, Bytes(32 << 20)); }},
      {"optimizer on host", [](Job& j) { j.offload.optimizer = facts::OffloadTo::cpu; }},
      {"activations on host", [](Job& j) { j.offload.activations = facts::OffloadTo::cpu; }},
      {"experts", add_experts},
      {"expert ranks",
       [](Job& j) {
         add_experts(j);
         j.machine.gpus = 4;
         j.parallel.expert = 2;
       }},
      {"context", [](Job& j) { j.parallel.context = 2; }},
      {"tensor", [](Job& j) { j.parallel.tensor = 2; }},
      {"zero-bubble",
       [](Job& j) {
         j.machine.gpus = 4;
         j.parallel.pipeline = 2;
         j.parallel.sharding = none;
         j.train.gradient_accumulation = 8;
         j.parallel.schedule = facts::Schedule::zero_bubble;
       }},
      {"kept gathered", [](Job& j) { j.parallel.reshard_after_forward = false; }},
      {"fsdp1", [](Job& j) { j.parallel.sharding = fsdp1; }},
      {"large buckets", [](Job& j) { j.parallel.buckets = {}; }},
      {"many micro-batches", [](Job& j) { j.train.gradient_accumulation = 17; }},
      {"torchtitan", [](Job& j) { j.framework = "torchtitan"; }},
      {"megatron", [](Job& j) { j.framework = "megatron"; }},
      {"litgpt", [](Job& j) { j.framework = "litgpt"; }},
      {"cache",
       [](Job& j) {
         j.train.recompute.mode = facts::RecomputeMode::full;
         j.train.keep_logits = true;
         j.train.use_cache = true;
       }},
      {"nodes that hold inputs",
       [](Job& j) {
         j.framework = "litgpt";
         j.versions = facts::Value(facts::Object{{"bitsandbytes", "0.42"}});
         j.train.method = facts::Method::qlora;
         j.train.base_quantization = facts::BaseQuantization::nf4;
       }},
      {"frozen units",
       [](Job& j) {
         j.versions = facts::Value(facts::Object{{"torch", "2.0"}});
         j.train.method = facts::Method::lora;
         j.parallel.sharding = fsdp1;
       }},
      {"torchtune", [](Job& j) { j.framework = "torchtune"; }},
      {"composer", [](Job& j) { j.framework = "composer"; }},
  };
  return kAll;
}

void expect_same(const facts::RankMemory& a, const facts::RankMemory& b) {
  EXPECT_EQ(a.peak_allocated, b.peak_allocated);
  EXPECT_EQ(a.peak_reserved, b.peak_reserved);
  EXPECT_EQ(a.peak_device_used, b.peak_device_used);
  EXPECT_EQ(a.steady_allocated, b.steady_allocated);
  EXPECT_EQ(a.by_category.bytes, b.by_category.bytes);
  EXPECT_EQ(a.peak_at.layer, b.peak_at.layer);
  EXPECT_EQ(a.peak_at.operation, b.peak_at.operation);
}

// Whether the job can be built; if so, both answers are compared.
bool compare(const Job& job) {
  Request request = request_for(job);
  const auto resolved =
      resolve(request.job, request.model, request.machine, request.constants.framework);
  if (!resolved) return false;
  const auto graph =
      model::build(request.model, {*resolved->train.micro_batch, *resolved->train.sequence_length});
  if (!graph) return false;
  const auto programs = step::programs_of(*graph, *resolved, request.constants.framework);
  if (!programs) return false;
  for (const step::RankProgram& rank : *programs) {
    vram::Request wanted;
    wanted.program = &rank.program;
    wanted.device = &request.constants.device_memory;
    wanted.capacity = request.machine.gpu.memory.value;
    wanted.conf = resolved->train.allocator;
    const vram::Answer compact = vram::replay(wanted);
    wanted.expand_all = true;
    expect_same(compact.memory, vram::replay(wanted).memory);
  }
  return true;
}

TEST(CompactReplay, IsThePlainExpansionWhateverTheJobAsksFor) {
  RandomJobs jobs(79);
  std::mt19937_64 random(80);
  int compared = 0;
  std::set<std::string> met;
  for (int i = 0; i < kDrawn; ++i) {
    Job job = jobs.next();
    std::vector<std::string> names;
    for (const std::uint64_t count = 1 + random() % 3; names.size() < count;) {
      const Feature& feature = features()[random() % features().size()];
      feature.set(job);
      names.emplace_back(feature.name);
    }
    SCOPED_TRACE(words(job) + ": " + names.front() + " to " + names.back());
    if (!compare(job)) continue;
    ++compared;
    met.insert(names.begin(), names.end());
  }
  EXPECT_GE(compared, kLeast);
  EXPECT_EQ(met.size(), features().size());  // none that nobody builds
}

}  // namespace
}  // namespace steelyard::plan
