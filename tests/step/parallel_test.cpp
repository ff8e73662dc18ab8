// Tensor, sequence, context and pipeline parallel programs: balanced lifetimes over a grid, and
// what the ranks hold and compute together.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "step/pipeline.h"
#include "step/player.h"
#include "step/small_jobs.h"
#include "step/tensor_parallel.h"

namespace steelyard::step {
namespace {

struct Ranks {
  std::int64_t tensor = 1, context = 1, pipeline = 1, virtual_stages = 1;
  bool sequence = false;
};

facts::Job job_of(const Ranks& ranks, std::int64_t data = 1) {
  facts::Job job = small_job(data);
  job.machine.gpus = data * ranks.tensor * ranks.context * ranks.pipeline;
  job.parallel.tensor = ranks.tensor;
  job.parallel.context = ranks.context;
  job.parallel.pipeline = ranks.pipeline;
  job.parallel.virtual_stages = ranks.virtual_stages;
  job.parallel.sequence_parallel = ranks.sequence;
  job.train.gradient_accumulation = ranks.virtual_stages > 1 && ranks.pipeline > 2 ? 8 : 6;
  return job;
}

facts::ModelSource llama_of(std::int64_t layers) {
  facts::ModelSource source = small_llama();
  source.config = facts::Object{{"model_type", "llama"},    {"hidden_size", 64},
                                {"num_attention_heads", 4}, {"num_key_value_heads", 2},
                                {"intermediate_size", 160}, {"num_hidden_layers", layers},
                                {"vocab_size", 500}};
  return source;
}

std::string text_of(const Ranks& r) {
  return "tensor " + std::to_string(r.tensor) + ", context " + std::to_string(r.context) +
         ", pipeline " + std::to_string(r.pipeline) + " x " + std::to_string(r.virtual_stages) +
         (r.sequence ? ", sequence" : "");
}

std::vector<RankProgram> programs(const model::Graph& graph, const facts::Job& job) {
  auto made = programs_of(graph, job, profile_of("pytorch"));
  EXPECT_TRUE(made) << (made ? "" : to_text(made.error()));
  return made ? std::move(*made) : std::vector<RankProgram>();
}

TEST(Parallel, StepsLeaveBehindWhatTheyFound) {
  const model::Graph graph = graph_of(llama_of(8));
  for (const Ranks& ranks :
       {Ranks{2, 1, 1, 1, false}, Ranks{2, 1, 1, 1, true}, Ranks{1, 2, 1, 1, false},
        Ranks{1, 1, 2, 1, false}, Ranks{1, 1, 4, 1, false}, Ranks{1, 1, 2, 2, false},
        Ranks{1, 1, 2, 4, false}, Ranks{4, 2, 4, 2, true}}) {
    for (const auto sharding : {facts::Sharding::none, facts::Sharding::zero1,
                                facts::Sharding::fsdp, facts::Sharding::shard_grad_op}) {
      for (const bool recompute : {false, true}) {
        for (const auto attention : {facts::Attention::flash, facts::Attention::math}) {
          // Partial results of the plain code cannot be merged.
          if (ranks.context > 1 && attention == facts::Attention::math) continue;
          facts::Job job = job_of(ranks, 2);
          job.parallel.sharding = sharding;
          job.train.attention = attention;
          if (recompute) job.train.recompute.mode = facts::RecomputeMode::full;
          for (const RankProgram& rank : programs(graph, job)) {
            expect_balanced(rank.program, text_of(ranks) + ", " + rank.kind + ", " +
                                              std::string(facts::name_of(sharding)));
          }
        }
      }
    }
  }
}

// Six micro-batches in groups of four: the last group would wait for itself.
TEST(Parallel, ChunksTakeWholeGroupsOfMicroBatches) {
  facts::Job job = job_of({1, 1, 4, 2, false});
  const model::Graph graph = graph_of(llama_of(8));
  EXPECT_TRUE(programs_of(graph, job, profile_of("pytorch")));
  for (const std::int64_t batches : {3, 6}) {
    job.train.gradient_accumulation = batches;
    const auto refused = programs_of(graph, job, profile_of("pytorch"));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().subject, "parallel.virtual_stages");
  }
}

TEST(Parallel, GpipeHoldsEveryMicroBatch) {
  facts::Job job = job_of({1, 1, 2, 1, false});
  job.parallel.schedule = facts::Schedule::gpipe;
  for (const RankProgram& rank : programs(graph_of(llama_of(4)), job)) {
    expect_balanced(rank.program, rank.kind);
    EXPECT_EQ(rank.program.in_flight, 6);
  }
}

// The schedule's turns, written out of a program. Of a chunk no pass keeps more phases than there
// are different ones: forward, the first or a later one; backward, the first, the last or between.
TEST(Parallel, ProgramsTakeTheirTurnsAndKeepEachPhaseOnce) {
  constexpr std::int64_t kMicroBatches = 40;
  const model::Graph graph = graph_of(llama_of(8));
  for (const std::int64_t chunks : {1, 2}) {
    facts::Job job = job_of({1, 1, 4, chunks, false});
    job.train.gradient_accumulation = kMicroBatches;
    std::int64_t stage = 0;
    for (const RankProgram& rank : programs(graph, job)) {
      std::vector<std::pair<PhaseKind, std::int32_t>> expected, found;
      for (const Turn& turn :
           turns_of(facts::Schedule::one_f_one_b, stage++, 4, chunks, kMicroBatches)) {
        expected.emplace_back(turn.kind, turn.chunk);
      }
      for (const Pass& pass : rank.program.step) {
        EXPECT_LE(std::ssize(pass.phases), 5 * chunks);
        for (std::int64_t i = 0; i < pass.repeat; ++i) {
          for_each_phase(pass, [&](const Phase& phase) {
            if (phase.kind != PhaseKind::forward && phase.kind != PhaseKind::backward) return;
            found.emplace_back(phase.kind, phase.chunk);
          });
        }
      }
      EXPECT_EQ(found, expected) << rank.kind;
    }
  }
}

double flops_of(const Program& program) {
  double sum = 0.0;
  play(program, program.step, [&](const Event& event, std::int64_t) {
    if (event.kind != EventKind::work) return;
    sum += program.work[static_cast<std::size_t>(event.index)].flops.value();
  });
  return sum;
}

// The ranks together multiply what one would: nothing is lost or done twice.
TEST(Parallel, RanksShareTheArithmetic) {
  const model::Graph graph = graph_of(llama_of(8));
  facts::Job alone = job_of({});
  const double whole = flops_of(programs(graph, alone).front().program);
  for (const Ranks& ranks : {Ranks{2, 1, 1, 1, false}, Ranks{2, 1, 1, 1, true},
                             Ranks{1, 1, 4, 1, false}, Ranks{2, 1, 2, 2, true}}) {
    double sum = 0.0;
    for (const RankProgram& rank : programs(graph, job_of(ranks))) {
      sum += flops_of(rank.program) * static_cast<double>(rank.ranks);
    }
    EXPECT_NEAR(sum / whole, 1.0, 1e-9) << text_of(ranks);
  }
}

Bytes parameters_of(const Program& program) {
  Bytes sum;
  play(program, program.setup, [&](const Event& event, std::int64_t) {
    const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
    if (slot.category == facts::VramCategory::parameters) sum += slot.bytes;
  });
  return sum;
}

// hidden 64, 4 heads of 16, 2 of keys, 160 features, 500 words, fp32. A layer: norms 2*64, q and o
// 64*64, k and v 64*32, gate, up and down 64*160. Over two ranks all but the norms is halved.
TEST(Parallel, TensorRanksHoldHalfOfTheMatricesAndAllNorms) {
  const model::Graph graph = graph_of(llama_of(8));
  const std::int64_t matrices = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160;
  const std::int64_t local = 8 * (2 * 64 + matrices / 2) + 2 * 500 / 2 * 64 + 64;
  const auto made = programs(graph, job_of({2, 1, 1, 1, false}));
  ASSERT_EQ(made.size(), 1u);
  EXPECT_EQ(made[0].ranks, 2);
  EXPECT_EQ(parameters_of(made[0].program), Bytes(4 * local));
}

TEST(Parallel, StagesHoldTheModelBetweenThem) {
  const model::Graph graph = graph_of(llama_of(8));
  const auto made = programs(graph, job_of({1, 1, 4, 1, false}));
  ASSERT_EQ(made.size(), 4u);
  Bytes sum;
  for (const RankProgram& rank : made) sum += parameters_of(rank.program);
  EXPECT_EQ(sum, Bytes(4 * model::parameter_count(graph).value()));
  EXPECT_EQ(made[0].kind, "pipeline stage 1 of 4");
  for (std::size_t stage = 0; stage < 4; ++stage) {
    EXPECT_EQ(made[stage].program.in_flight, 4 - static_cast<std::int64_t>(stage));
  }
}

// With 4 key-value heads over 8 ranks two ranks hold each head; 3 ranks do not divide 4 heads.
TEST(Parallel, HeadsFewerThanRanksAreHeldTwice) {
  facts::ModelSource source = llama_of(2);
  const model::Graph graph = graph_of(source);
  const auto local = split_over_ranks(graph, 4, false);
  ASSERT_TRUE(local);
  for (const model::Operator& op : local->segments[1].blocks[0].operators) {
    if (op.kind != model::OperatorKind::attention) continue;
    EXPECT_EQ(op.attention.heads, 1);
    EXPECT_EQ(op.attention.kv_heads, 1);
  }
  const auto uneven = split_over_ranks(graph, 3, false);
  ASSERT_FALSE(uneven);
  EXPECT_EQ(uneven.error().subject, "parallel.tensor");
}

// Megatron-DeepSpeed's table of positions under sequence parallelism.
TEST(Parallel, PositionsAreCutOnlyWhereTheFrameworkDoes) {
  const auto rows = [](bool sequence, const facts::Value& versions) {
    facts::Job job = job_of({2, 1, 1, 1, sequence});
    const Program program =
        program_for(graph_of(small_gpt2()), job, profile_of("megatron", versions));
    for (const Slot& slot : program.slots) {
      if (program.names[static_cast<std::size_t>(slot.name)].ends_with("wpe.weight")) {
        return slot.bytes.value();
      }
    }
    return std::int64_t{0};
  };
  const facts::Value fork = facts::Object{{"megatron-deepspeed", "2023.09"}};
  const std::int64_t whole = rows(true, {});
  EXPECT_GT(whole, 0);
  EXPECT_EQ(rows(false, fork), whole);
  EXPECT_EQ(rows(true, fork), whole / 2);
}

TEST(Parallel, TablesOfTokensStayWholeWhereTheFrameworkKeepsThem) {
  const auto rows = [](std::int64_t ranks, const char* word) {
    facts::FrameworkProfile profile = profile_of("pytorch");
    profile.operators["token_table"] = word;
    const Program program =
        program_for(graph_of(small_gpt2()), job_of({ranks, 1, 1, 1, false}), profile);
    for (const Slot& slot : program.slots) {
      if (program.names[static_cast<std::size_t>(slot.name)].ends_with("wte.weight")) {
        return slot.bytes.value();
      }
    }
    return std::int64_t{0};
  };
  const std::int64_t whole = rows(1, "split");
  EXPECT_GT(whole, 0);
  EXPECT_EQ(rows(2, "split"), whole / 2);
  EXPECT_EQ(rows(2, "whole"), whole);
}

facts::ModelSource small_mixtral() {
  return {"small mixtral",
          facts::Object{{"model_type", "mixtral"},
                        {"hidden_size", 64},
                        {"num_attention_heads", 4},
                        {"num_key_value_heads", 2},
                        {"intermediate_size", 160},
                        {"num_hidden_layers", 4},
                        {"num_local_experts", 8},
                        {"num_experts_per_tok", 2},
                        {"vocab_size", 500}},
          ""};
}

facts::Job expert_job(std::int64_t expert, std::int64_t expert_tensor, const Ranks& ranks) {
  facts::Job job = job_of(ranks, 4);
  job.parallel.expert = expert;
  job.parallel.expert_tensor = expert_tensor;
  return job;
}

TEST(Experts, StepsLeaveBehindWhatTheyFound) {
  const model::Graph graph = graph_of(small_mixtral());
  for (const auto sharding :
       {facts::Sharding::none, facts::Sharding::zero1, facts::Sharding::fsdp}) {
    for (const bool recompute : {false, true}) {
      for (const auto& [expert, expert_tensor, ranks] :
           {std::tuple{2, 1, Ranks{}}, std::tuple{4, 1, Ranks{2, 1, 1, 1, true}},
            std::tuple{2, 2, Ranks{2, 1, 2, 1, true}},
            std::tuple{1, 1, Ranks{2, 1, 1, 1, false}}}) {
        facts::Job job = expert_job(expert, expert_tensor, ranks);
        job.parallel.sharding = sharding;
        if (recompute) job.train.recompute.mode = facts::RecomputeMode::full;
        for (const RankProgram& rank : programs(graph, job)) {
          expect_balanced(rank.program, text_of(ranks) + ", expert " + std::to_string(expert) +
                                            " x " + std::to_string(expert_tensor));
        }
      }
    }
  }
}

// A layer: norms 2*64, q and o 64*64, k and v 64*32, router 8*64, and 8 experts of 3*64*160. Of
// four ranks each holds two experts, or half of the features of four.
TEST(Experts, RanksHoldTheirExpertsOnly) {
  const model::Graph graph = graph_of(small_mixtral());
  const std::int64_t common = 2 * 64 + 2 * 64 * 64 + 2 * 64 * 32 + 8 * 64;
  const std::int64_t ends = 2 * 500 * 64 + 64;
  for (const auto& [expert, features] : {std::pair{4, 1}, std::pair{2, 2}}) {
    const auto made = programs(graph, expert_job(expert, features, {}));
    ASSERT_EQ(made.size(), 1u);
    const std::int64_t own = 8 / expert * (3 * 64 * 160 / features);
    EXPECT_EQ(parameters_of(made[0].program), Bytes(4 * (4 * (common + own) + ends)));
  }
}

// Sorted and sent, the same products are done as by the loop over the experts.
TEST(Experts, RanksShareTheArithmetic) {
  const model::Graph graph = graph_of(small_mixtral());
  const double loop = flops_of(programs(graph, expert_job(1, 1, {})).front().program);
  for (const auto& [expert, features] : {std::pair{4, 1}, std::pair{2, 2}, std::pair{1, 2}}) {
    const auto made = programs(graph, expert_job(expert, features, {}));
    EXPECT_NEAR(flops_of(made[0].program) / loop, 1.0, 1e-9) << expert << " x " << features;
  }
}

// The arithmetic of experts grows as their rows do: with twice the load, by as much as experts take
// when the load is even.
TEST(Experts, AStatedLoadMakesMoreRows) {
  const model::Graph graph = graph_of(small_mixtral());
  const auto flops_with = [&](double imbalance, double capacity) {
    facts::Job job = expert_job(4, 1, {});
    job.parallel.expert_imbalance = imbalance;
    job.parallel.expert_capacity = capacity;
    const auto made = programs(graph, job);
    expect_balanced(made[0].program, "stated load");
    return flops_of(made[0].program);
  };
  const double even = flops_with(1.0, 1.0);
  const double twice = flops_with(2.0, 1.0);
  EXPECT_GT(twice, even);
  EXPECT_NEAR((flops_with(3.0, 1.0) - even) / (twice - even), 2.0, 1e-9);
  EXPECT_NEAR(flops_with(1.0, 2.0) / twice, 1.0, 1e-9);
}

// 8 experts over 4 ranks, 2 of each token: when all go to one rank, it gets 4 times an even share.
TEST(Experts, ALoadIsOneThatARankCanGet) {
  const model::Graph graph = graph_of(small_mixtral());
  const auto error = [&](double imbalance, double capacity, std::int64_t ranks) {
    facts::Job job = expert_job(ranks, 1, {});
    job.parallel.expert_imbalance = imbalance;
    job.parallel.expert_capacity = capacity;
    const auto made = programs_of(graph, job, profile_of("megatron"));
    return made ? std::string("planned") : to_text(made.error());
  };
  EXPECT_EQ(error(4.0, 1.0, 4), "planned");
  EXPECT_NE(error(4.1, 1.0, 4).find("at most 4"), std::string::npos);
  EXPECT_NE(error(1.1, 1.0, 1).find("a rank that holds all experts"), std::string::npos);
  EXPECT_NE(error(2.0, 1.5, 4).find("beside expert_capacity"), std::string::npos);
}

TEST(Experts, ALoadNeedsExpertsThatRowsAreSentTo) {
  facts::Job job = expert_job(1, 1, {});
  job.parallel.expert_imbalance = 2.0;
  for (const facts::ModelSource& source : {small_mixtral(), small_llama()}) {
    const auto made = programs_of(graph_of(source), job, profile_of("pytorch"));
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().subject, "parallel.expert_imbalance");
  }
}

// deepspeed/runtime/pipe/engine.py: "ZeRO-2 and ZeRO-3 are incompatible with pipeline parallelism".
TEST(Pipeline, RefusesDividedGradients) {
  facts::Job job = job_of({.pipeline = 2}, 4);
  for (const auto sharding : {facts::Sharding::zero2, facts::Sharding::zero3}) {
    job.parallel.sharding = sharding;
    const auto made = programs_of(graph_of(small_llama()), job, profile_of("pytorch"));
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().subject, "parallel.sharding");
  }
}

TEST(Experts, RefusesWhatDoesNotDivide) {
  const auto error_of = [](const facts::ModelSource& source, const facts::Job& job) {
    const auto made = programs_of(graph_of(source), job, profile_of("pytorch"));
    return made ? Error{} : made.error();
  };
  EXPECT_EQ(error_of(small_mixtral(), expert_job(3, 1, {})).subject, "parallel.expert");
  EXPECT_EQ(error_of(small_mixtral(), expert_job(1, 3, {})).subject, "parallel.expert_tensor");
  const Error none = error_of(small_llama(), expert_job(2, 1, {}));
  EXPECT_EQ(none.subject, "parallel.expert");
  EXPECT_EQ(none.code, ErrorCode::impossible_combination);
  // Four experts over two ranks each want eight; there are four.
  EXPECT_EQ(error_of(small_mixtral(), expert_job(4, 2, {})).subject, "parallel.expert");
}

// Megatron-FSDP: beside shards of bf16 parameters such of fp32 gradients, from the start.
TEST(Parallel, MegatronFsdpKeepsShardsOfGradients) {
  facts::Job job = small_job(4);
  job.parallel.sharding = facts::Sharding::fsdp;
  job.train.precision = facts::Precision::bf16;
  job.train.optimizer.master_weights = true;
  job.megatron.emplace();
  job.megatron->gradient_buffer = false;
  const auto held = [&job](facts::VramCategory category) {
    const Program program = program_for(graph_of(small_llama()), job, profile_of("megatron"));
    expect_balanced(program, "Megatron-FSDP");
    Bytes sum;
    play(program, program.setup, [&](const Event& event, std::int64_t) {
      const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
      if (event.kind == EventKind::allocate && slot.category == category) sum += slot.bytes;
    });
    return sum;
  };
  EXPECT_EQ(held(facts::VramCategory::gradients), Bytes());
  job.megatron->operators["gradient_shards"] = "kept";
  EXPECT_EQ(held(facts::VramCategory::gradients), 2 * held(facts::VramCategory::parameters));
}

// fully_shard() on embedding and head: gathered for forward and for backward, as layers are, not
// once with the root. A head that is the embedding's matrix stays with the root.
TEST(Parallel, EndsMayBeShardingUnits) {
  facts::Job job = small_job(4);
  job.parallel.sharding = facts::Sharding::fsdp;
  const auto gathers = [&job](const facts::ModelSource& source, const char* ends) {
    facts::FrameworkProfile profile = profile_of("pytorch");
    profile.operators["end_units"] = ends;
    const Program program = program_for(graph_of(source), job, profile);
    expect_balanced(program, ends);
    int count = 0;
    play(program, program.step, [&](const Event& event, std::int64_t) {
      if (event.kind != EventKind::communicate) return;
      const auto& sent = program.communication[static_cast<std::size_t>(event.index)];
      if (sent.kind == Collective::all_gather) ++count;
    });
    return count;
  };
  EXPECT_EQ(gathers(small_llama(), "own"), gathers(small_llama(), "root") + 2);
  EXPECT_EQ(gathers(small_llama(), "own_when_all_train"), gathers(small_llama(), "own"));
  EXPECT_EQ(gathers(small_gpt2(), "own"), gathers(small_gpt2(), "root"));
  job.train.gradient_accumulation = 3;
  EXPECT_EQ(gathers(small_llama(), "own"), gathers(small_llama(), "root") + 6);
}

}  // namespace
}  // namespace steelyard::step
