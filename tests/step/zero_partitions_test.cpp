// What ZeRO-1 and ZeRO-2 hold in flat pieces, when it comes and when it goes.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

using facts::Precision;
using facts::Sharding;

constexpr std::int64_t kRanks = 4;

class ZeroPartitions : public ::testing::Test {
 protected:
  facts::Job job(Sharding sharding, Precision precision = Precision::bf16_mixed) {
    facts::Job made = small_job(kRanks);
    made.parallel.sharding = sharding;
    made.train.precision = precision;
    made.train.optimizer.fused = true;
    return made;
  }
  // "+name" and "-name" of the named allocations, repetitions once.
  std::vector<std::string> order(const Program& program, const std::vector<Pass>& passes) {
    std::vector<std::string> all;
    play(program, passes, [&](const Event& event, std::int64_t) {
      if (event.kind != EventKind::allocate && event.kind != EventKind::free) return;
      const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
      const std::string& name = program.names[static_cast<std::size_t>(slot.name)];
      if (!bytes_.contains(name)) return;
      EXPECT_EQ(slot.bytes, bytes_[name]) << name;
      all.push_back((event.kind == EventKind::allocate ? "+" : "-") + name);
    });
    return all;
  }

  model::Graph graph_ = graph_of(small_llama());
  facts::FrameworkProfile profile_ = profile_of("deepspeed");
  // 500 x 64 twice, three layers of 64 x (64 + 32 + 32 + 64) + 3 x 64 x 160 and two norms, a norm:
  // a multiple of 4 in every tensor, so a partition is a quarter.
  std::int64_t all_ = model::parameter_count(graph_).value();
  std::int64_t part_ = all_ / kRanks;
  std::map<std::string, Bytes> bytes_;
};

TEST_F(ZeroPartitions, ParametersAreJoinedBesideThemselvesAndLetGo) {
  const Program program = program_for(graph_, job(Sharding::zero2), profile_);
  std::map<std::string, Bytes> held;
  play(program, program.setup, [&](const Event& event, std::int64_t) {
    const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
    if (slot.category != facts::VramCategory::parameters) return;
    Bytes& bytes = held[event.kind == EventKind::allocate ? "taken" : "freed"];
    bytes += slot.bytes;
  });
  EXPECT_EQ(held["taken"], Bytes(2 * 2 * all_));
  EXPECT_EQ(held["freed"], Bytes(2 * all_));
}

TEST_F(ZeroPartitions, BeforeThatTheyWentToTheHost) {
  profile_.operators["zero_flattening"] = "on_host";
  bytes_ = {{"flat parameters", Bytes(2 * all_)}, {"partition", Bytes(2 * part_)}};
  const Program program = program_for(graph_, job(Sharding::zero2), profile_);
  EXPECT_TRUE(order(program, program.setup).empty());
  EXPECT_TRUE(program.first_optimizer.empty());  // states were made at start-up
}

TEST_F(ZeroPartitions, StatesComeWithTheFirstStep) {
  bytes_ = {{"optimizer state", Bytes(4 * part_)}};
  const Program program = program_for(graph_, job(Sharding::zero1), profile_);
  EXPECT_TRUE(order(program, program.setup).empty());
  EXPECT_EQ(order(program, program.first_optimizer),
            (std::vector<std::string>{"+optimizer state", "+optimizer state"}));
}

TEST_F(ZeroPartitions, GradientsAreJoinedWidenedAndLetGo) {
  bytes_ = {{"gradient partition", Bytes(2 * part_)},
            {"joined gradients", Bytes(2 * part_)},
            {"gradient in double", Bytes(8 * 500 * 64)},  // the embedding: less than a partition?
            {"optimizer temporary", Bytes()}};
  bytes_["gradient in double"] = Bytes(8 * std::min<std::int64_t>(500 * 64, part_));
  const std::vector<std::string> step = {"+gradient in double", "-gradient in double",
                                         "+joined gradients", "-joined gradients",
                                         "-gradient partition"};
  const Program two = program_for(graph_, job(Sharding::zero2), profile_);
  std::vector<std::string> expected = step;
  expected.insert(expected.begin(), "+gradient partition");  // with the first bucket
  EXPECT_EQ(order(two, two.step), expected);
  const Program one = program_for(graph_, job(Sharding::zero1), profile_);
  expected = step;
  expected.insert(expected.begin() + 2, "+gradient partition");  // when all are reduced
  EXPECT_EQ(order(one, one.step), expected);
}

// A further micro-batch's partition is added to the first one's.
TEST_F(ZeroPartitions, MicroBatchesHaveAPartitionEach) {
  bytes_ = {{"gradient partition", Bytes(2 * part_)}};
  facts::Job several = job(Sharding::zero2);
  several.train.gradient_accumulation = 3;
  const Program program = program_for(graph_, several, profile_);
  EXPECT_EQ(order(program, program.step),
            (std::vector<std::string>{"+gradient partition", "+gradient partition",
                                      "-gradient partition", "+gradient partition",
                                      "-gradient partition", "-gradient partition"}));
}

// fp32: the partition that is stepped is a clone all the same; nothing is widened.
TEST_F(ZeroPartitions, InFp32TheCloneIsThePartition) {
  bytes_ = {{"master weights", Bytes(4 * part_)},
            {"joined gradients", Bytes(4 * part_)},
            {"gradient in fp32", Bytes()},
            {"partition", Bytes()}};
  const Program program = program_for(graph_, job(Sharding::zero2, Precision::fp32), profile_);
  EXPECT_EQ(order(program, program.setup), std::vector<std::string>{"+master weights"});
  EXPECT_EQ(order(program, program.step),
            (std::vector<std::string>{"+joined gradients", "-joined gradients"}));
}

// Where two copies do not fit, they are joined on the host as before.
TEST_F(ZeroPartitions, ACardWithoutRoomForBothJoinsOnTheHost) {
  facts::Gpu gpu;
  gpu.memory = {Bytes(3 * all_), facts::Provenance::catalogue};
  const auto programs = programs_of(graph_, job(Sharding::zero2), profile_, gpu);
  ASSERT_TRUE(programs);
  const Program& program = programs->front().program;
  Bytes freed;
  play(program, program.setup, [&](const Event& event, std::int64_t) {
    const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
    const bool parameters = slot.category == facts::VramCategory::parameters;
    if (event.kind == EventKind::free && parameters) freed += slot.bytes;
  });
  EXPECT_EQ(freed, Bytes());
}

}  // namespace
}  // namespace steelyard::step
