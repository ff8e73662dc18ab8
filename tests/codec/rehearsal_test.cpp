#include "codec/rehearsal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "codec/codec.h"

namespace steelyard::codec {
namespace {

facts::Rehearsal sample() {
  facts::Rehearsal r;
  r.setting.data = "/data";
  r.setting.step_time = Seconds(0.25);
  r.samples = Samples(512);
  r.rate = SamplesPerSecond(1.0 / 3.0);
  r.end = facts::RehearsalEnd::fault;
  r.utilization_least = Ratio(0.5);
  r.stages = {{.name = "read",
               .threads = 1,
               .can = {},
               .busy = Seconds(1),
               .waits_for_data = Seconds(2),
               .waits_for_room = Seconds(3),
               .cpu = Seconds(4)}};
  r.memory.peak = Bytes(123);
  r.faults = {{.kind = facts::FaultKind::truncated, .count = 2, .first = {"a", "b"}}};
  facts::RehearsalRank rank;
  rank.rank = 3;
  rank.host = "node";
  r.crew = {.hosts = 1, .steps = 9, .slowest = 3, .ranks = {rank}};
  return r;
}

// Processes hand their rehearsals to the first one as text.
TEST(Rehearsal, WhatIsWrittenIsRead) {
  const std::string text = to_json(to_value(sample()), 0);
  const auto value = parse(text, Format::json, "rank 1");
  ASSERT_TRUE(value);
  const auto read = rehearsal_from(*value, "rank 1");
  ASSERT_TRUE(read) << to_text(read.error());
  EXPECT_EQ(to_json(to_value(*read), 0), text);
  EXPECT_FALSE(read->stages[0].can);
  EXPECT_FALSE(read->utilization_mean);
  EXPECT_EQ(read->crew->slowest, 3);
}

TEST(Rehearsal, WhatIsNoneIsRefused) {
  const auto value = parse("{\"schema\": \"steelyard.plan/1\"}", Format::json, "rank 1");
  ASSERT_TRUE(value);
  EXPECT_FALSE(rehearsal_from(*value, "rank 1"));
}

}  // namespace
}  // namespace steelyard::codec
