// What versions and flags say of waiting: whether collectives run beside the computation, and
// whether a bias is a kernel of its own.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

facts::FrameworkProfile profile_with(const char* framework, const facts::Value& versions) {
  const auto catalog =
      catalog::Catalog::at(std::filesystem::path(STEELYARD_SOURCE_DIR) / "catalog");
  const auto constants = catalog.constants(framework, versions);
  EXPECT_TRUE(constants) << (constants ? "" : to_text(constants.error()));
  return constants ? constants->framework : facts::FrameworkProfile();
}

struct Sent {
  int beside = 0, waited_for = 0;
};

Sent sent_by(const Program& program, std::string_view name) {
  Sent sent;
  for (const Communication& each : program.communication) {
    const auto text = static_cast<std::size_t>(each.name);
    if (text >= program.names.size()) continue;
    if (program.names[text].find(name) == std::string::npos) continue;
    (each.overlaps ? sent.beside : sent.waited_for) += 1;
  }
  return sent;
}

Program zero3(const facts::Value& versions) {
  facts::Job job = small_job(4);
  job.parallel.sharding = facts::Sharding::zero3;
  return program_for(graph_of(small_llama()), job, profile_with("deepspeed", versions));
}

// DeepSpeed 0.5.10 and before: stage3.py, fetch_sub_module, "This call is blocking".
TEST(Waiting, Zero3WaitsForWhatItGathersUntilDeepSpeed06) {
  const Program old = zero3(facts::Object{{"deepspeed", "0.5.10"}});
  const Program now = zero3(facts::Object{{"deepspeed", "0.6.0"}});
  EXPECT_EQ(sent_by(old, "all_gather").beside, 0);
  EXPECT_EQ(sent_by(old, "reduce_scatter").beside, 0);
  EXPECT_GT(sent_by(now, "all_gather").beside, 0);
  EXPECT_GT(sent_by(now, "reduce_scatter").beside, 0);
  EXPECT_EQ(old.communication.size(), now.communication.size());
}

Program under_megatron(bool overlaps) {
  facts::Job job = small_job(4);
  job.megatron.emplace();
  job.megatron->gradient_buffer = true;
  job.megatron->overlaps_reduction = overlaps;
  return program_for(graph_of(small_gpt2()), job, profile_of("megatron"));
}

// --overlap-grad-reduce is off by default.
TEST(Waiting, MegatronReducesBesideBackwardOnlyWhereItIsTold) {
  EXPECT_EQ(sent_by(under_megatron(false), "all_reduce").beside, 0);
  EXPECT_GT(sent_by(under_megatron(false), "all_reduce").waited_for, 0);
  EXPECT_GT(sent_by(under_megatron(true), "all_reduce").beside, 0);
}

std::size_t kernels_of(const Program& program, std::string_view name) {
  std::size_t kernels = 0;
  for (const Work& work : program.work) {
    const auto text = static_cast<std::size_t>(work.name);
    kernels += text < program.names.size() && program.names[text].ends_with(name) ? 1U : 0U;
  }
  return kernels;
}

// pytorch pull request 74070: fused with the product of more than two dimensions from 1.12 on.
TEST(Waiting, ABiasIsAKernelOfItsOwnUntilTorch111) {
  const auto kernels = [](const char* torch) {
    return kernels_of(program_for(graph_of(small_gpt2()), small_job(),
                                  profile_with("pytorch", facts::Object{{"torch", torch}})),
                      ": add_");
  };
  EXPECT_GT(kernels("1.11"), kernels("1.12"));
}

std::vector<std::int64_t> copies_of(facts::Sharding sharding, const char* framework,
                                    std::string_view name) {
  facts::Job job = small_job(4);
  job.parallel.sharding = sharding;
  const Program program = program_for(graph_of(small_llama()), job, profile_of(framework));
  std::vector<std::int64_t> traffic;
  for (const Work& work : program.work) {
    const auto text = static_cast<std::size_t>(work.name);
    if (text < program.names.size() && program.names[text].ends_with(name)) {
      traffic.push_back(work.traffic.value());
    }
  }
  return traffic;
}

// A layer of 43,136 elements: FSDP2 reads and writes each in 2 bytes behind its gathering, forward
// and backward, and reads its gradient in 2 to write it in 4. FSDP1 gathers in place, and joins the
// gradients of its views. XLA does neither.
TEST(Waiting, WhatFsdpGathersAndReducesIsCopied) {
  using facts::Sharding;
  const auto layers = [](const std::vector<std::int64_t>& traffic, std::int64_t bytes = 4) {
    return std::count(traffic.begin(), traffic.end(), bytes * 43'136);
  };
  EXPECT_EQ(layers(copies_of(Sharding::fsdp, "pytorch", "copy_out")), 2);
  EXPECT_EQ(layers(copies_of(Sharding::fsdp, "pytorch", "copy_in"), 6), 1);
  EXPECT_EQ(copies_of(Sharding::fsdp1, "pytorch", "copy_out").size(), 0U);
  EXPECT_EQ(layers(copies_of(Sharding::fsdp1, "pytorch", "copy_in")), 1);
  EXPECT_EQ(copies_of(Sharding::fsdp, "jax", "copy_out").size(), 0U);
  EXPECT_EQ(copies_of(Sharding::fsdp, "jax", "copy_in").size(), 0U);
  EXPECT_EQ(copies_of(Sharding::zero3, "deepspeed", "copy_out").size(), 0U);
}

}  // namespace
}  // namespace steelyard::step
