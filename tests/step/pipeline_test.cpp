// Pipeline schedules and stages.
#include "step/pipeline.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

using facts::Schedule;

// "F0 F0 B0": kind and chunk of each turn.
std::string text_of(const std::vector<Turn>& turns) {
  std::string text;
  for (const Turn& turn : turns) {
    text += (text.empty() ? "" : " ") + std::string(turn.kind == PhaseKind::forward ? "F" : "B") +
            std::to_string(turn.chunk);
  }
  return text;
}

TEST(Turns, OneForwardOneBackwardByHand) {
  EXPECT_EQ(text_of(turns_of(Schedule::one_f_one_b, 0, 3, 1, 4)), "F0 F0 F0 B0 F0 B0 B0 B0");
  EXPECT_EQ(text_of(turns_of(Schedule::one_f_one_b, 2, 3, 1, 2)), "F0 B0 F0 B0");
  EXPECT_EQ(text_of(turns_of(Schedule::gpipe, 1, 2, 1, 2)), "F0 F0 B0 B0");
}

// Two stages, two chunks, four micro-batches, last stage: (2-1-1)*2 + (2-1)*2 = 2 ahead.
TEST(Turns, InterleavedByHand) {
  EXPECT_EQ(text_of(turns_of(Schedule::interleaved, 1, 2, 2, 4)),
            "F0 F0 F1 B1 F1 B1 F0 B0 F0 B0 F1 B1 F1 B1 B0 B0");
}

// Last of two stages: F0 F0 F1 B1 F1 B1 F0 B0 ...: three passes wait at most, all of chunk 0 then.
// At the first of eight the chunks reach their most one after the other.
TEST(Turns, WhatWaitsIsLessThanTheSumOfEachChunksMost) {
  const auto last = turns_of(Schedule::interleaved, 1, 2, 2, 4);
  EXPECT_EQ(most_waiting(last, {Bytes(1), Bytes(1)}), Bytes(3));
  EXPECT_EQ(most_waiting(last, {Bytes(10), Bytes(1)}), Bytes(30));
  EXPECT_EQ(most_waiting(last, {Bytes(0), Bytes(1)}), Bytes(1));
  const auto first = turns_of(Schedule::interleaved, 0, 8, 4, 48);
  EXPECT_EQ(most_waiting(first, std::vector<Bytes>(4, Bytes(1))), Bytes(7 * 2 + 3 * 8 + 1));
  EXPECT_GT(4 * in_flight(first), 7 * 2 + 3 * 8 + 1);
  const auto one = turns_of(Schedule::one_f_one_b, 1, 4, 1, 9);
  EXPECT_EQ(most_waiting(one, {Bytes(5)}), in_flight(one) * Bytes(5));
}

TEST(Turns, EveryMicroBatchPassesEveryChunkTwice) {
  for (const auto schedule : {Schedule::one_f_one_b, Schedule::gpipe, Schedule::interleaved}) {
    for (std::int64_t stages = 1; stages <= 4; ++stages) {
      for (std::int64_t chunks = 1; chunks <= 3; ++chunks) {
        for (std::int64_t micro_batches = 1; micro_batches <= 9; ++micro_batches) {
          for (std::int64_t stage = 0; stage < stages; ++stage) {
            const auto turns = turns_of(schedule, stage, stages, chunks, micro_batches);
            std::vector<std::int64_t> open(static_cast<std::size_t>(chunks), 0);
            std::int64_t lasts = 0;
            for (const Turn& turn : turns) {
              std::int64_t& count = open[static_cast<std::size_t>(turn.chunk)];
              count += turn.kind == PhaseKind::forward ? 1 : -1;
              EXPECT_GE(count, 0);
              lasts += turn.last ? 1 : 0;
            }
            EXPECT_EQ(turns.size(), static_cast<std::size_t>(2 * chunks * micro_batches));
            EXPECT_EQ(lasts, chunks);
            for (const std::int64_t count : open) EXPECT_EQ(count, 0);
          }
        }
      }
    }
  }
}

// Megatron's memory formula: an interleaved first stage has (p - 1) * 2 + (v - 1) * p + 1 chunk
// passes ahead, together (1 + (p - 1) / (p * v)) of a stage's layers times p.
TEST(Turns, InterleavedHoldsWhatThePaperSays) {
  const std::vector<Turn> turns = turns_of(Schedule::interleaved, 0, 4, 2, 16);
  std::int64_t now = 0;
  std::int64_t most = 0;
  for (const Turn& turn : turns) {
    now += turn.kind == PhaseKind::forward ? 1 : -1;
    most = std::max(most, now);
  }
  EXPECT_EQ(most, 3 * 2 + 1 * 4 + 1);
}

TEST(Runs, AreTheTurnsInOrder) {
  for (std::int64_t micro_batches = 1; micro_batches <= 40; micro_batches += 3) {
    for (std::int64_t chunks = 1; chunks <= 2; ++chunks) {
      const auto turns = turns_of(chunks > 1 ? Schedule::interleaved : Schedule::one_f_one_b, 1, 4,
                                  chunks, micro_batches);
      std::vector<Turn> again;
      for (const auto& run : runs_of(turns, static_cast<std::size_t>(2 * 4 * chunks))) {
        for (std::int64_t r = 0; r < run.repeat; ++r) {
          for (std::size_t i = 0; i < run.count; ++i) again.push_back(turns[run.first + i]);
        }
      }
      EXPECT_EQ(again, turns);
    }
  }
}

TEST(Runs, ASteadyStateIsOne) {
  const auto turns = turns_of(Schedule::one_f_one_b, 0, 4, 1, 100);
  // The first forward apart and three more; the first backward; 96 pairs, of which none is the
  // last backward; three behind, the last apart.
  EXPECT_EQ(runs_of(turns, 8).size(), 6u);
}

TEST(Stages, LayersThatDoNotDivideGoToTheMiddle) {
  facts::ModelSource source = small_llama();
  const model::Graph graph = graph_of(source);  // three layers
  facts::ParallelKeys parallel;
  parallel.pipeline = 2;
  const auto stages = stages_of(graph, parallel);
  ASSERT_TRUE(stages);
  ASSERT_EQ(stages->size(), 2u);
  EXPECT_EQ((*stages)[0].graph.segments.size(), 2u);  // embedding, layers
  EXPECT_EQ((*stages)[1].graph.segments.size(), 3u);  // rotary tables, layers, head
  EXPECT_TRUE((*stages)[1].has_loss);
  EXPECT_FALSE((*stages)[0].has_loss);
}

TEST(Stages, RefusesWhatDoesNotAddUp) {
  const model::Graph graph = graph_of(small_llama());
  facts::ParallelKeys parallel;
  parallel.pipeline = 2;
  parallel.stage_layers = {1, 1};
  const auto short_of_one = stages_of(graph, parallel);
  ASSERT_FALSE(short_of_one);
  EXPECT_EQ(short_of_one.error().subject, "parallel.stage_layers");
  parallel.stage_layers.clear();
  parallel.pipeline = 4;
  const auto too_many = stages_of(graph, parallel);
  ASSERT_FALSE(too_many);
  EXPECT_EQ(too_many.error().subject, "parallel.pipeline");
}

// A tied output projection on another stage than the embedding is a copy of its own.
TEST(Stages, TheLastStageHasItsOwnCopyOfATiedWeight) {
  const model::Graph graph = graph_of(small_gpt2());
  facts::ParallelKeys parallel;
  parallel.pipeline = 3;
  const auto stages = stages_of(graph, parallel);
  ASSERT_TRUE(stages);
  Parameters sum;
  for (const Stage& stage : *stages) sum += model::parameter_count(stage.graph);
  EXPECT_EQ(sum, model::parameter_count(graph) + Parameters(500 * 64));
}

}  // namespace
}  // namespace steelyard::step
