// The program of a step: its arithmetic against the model's own count, its communication by hand,
// and the keys that it refuses.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

using facts::Sharding;

struct Arithmetic64 {
  double forward_gemm = 0, forward_attention = 0;
  double backward_gemm = 0, backward_attention = 0;
  double recomputed = 0;
  std::int64_t kernels = 0;
};

Arithmetic64 arithmetic_of(const Program& program) {
  Arithmetic64 sum;
  play(program, program.step, [&](const Event& event, std::int64_t) {
    if (event.kind != EventKind::work) return;
    ++sum.kernels;
    const Work& work = program.work[static_cast<std::size_t>(event.index)];
    const double flops = work.flops.value();
    const bool attention = work.kind == WorkKind::attention;
    if (work.recomputed) {
      sum.recomputed += flops;
    } else if (work.backward) {
      (attention ? sum.backward_attention : sum.backward_gemm) += flops;
    } else {
      (attention ? sum.forward_attention : sum.forward_gemm) += flops;
    }
  });
  return sum;
}

double attention_flops(const model::Graph& graph) {
  double sum = 0;
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Operator& op : block.operators) {
        if (op.kind != model::OperatorKind::attention) continue;
        sum += static_cast<double>(segment.repeat) * model::forward_flops(op, block, graph).value();
      }
    }
  }
  return sum;
}

// The product whose flops recomputation saves: nothing behind it is needed for the backward pass.
double flops_of(const model::Graph& graph, std::string_view name) {
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Operator& op : block.operators) {
        if (op.name != name) continue;
        return static_cast<double>(segment.repeat) * model::forward_flops(op, block, graph).value();
      }
    }
  }
  ADD_FAILURE() << "no operator " << name;
  return 0;
}

class Flops64 : public ::testing::TestWithParam<facts::ModelSource> {
 protected:
  model::Graph graph_ = graph_of(GetParam());
  facts::FrameworkProfile profile_ = profile_of("pytorch");
};

// Backward is not part of model::forward_flops: each product twice (for its input and its weight),
// flash attention's two products as five, because it computes the scores again.
TEST_P(Flops64, AreTheModelsOwn) {
  const Arithmetic64 sum = arithmetic_of(program_for(graph_, small_job(), profile_));
  const double expected = model::forward_flops(graph_).value();
  EXPECT_EQ(sum.forward_gemm + sum.forward_attention, expected);
  EXPECT_EQ(sum.forward_attention, attention_flops(graph_));
  EXPECT_EQ(sum.backward_gemm, 2.0 * sum.forward_gemm);
  EXPECT_EQ(sum.backward_attention, 2.5 * sum.forward_attention);
  EXPECT_EQ(sum.recomputed, 0.0);
}

// The model's own attention code multiplies whole squares, not the causal half.
TEST_P(Flops64, OfMathAttentionAreOfTheWholeSquare) {
  facts::Job job = small_job();
  job.train.attention = facts::Attention::math;
  const Arithmetic64 sum = arithmetic_of(program_for(graph_, job, profile_));
  EXPECT_EQ(sum.forward_attention, 0.0);  // products like any other
  EXPECT_EQ(sum.forward_gemm, model::forward_flops(graph_).value() + attention_flops(graph_));
  EXPECT_EQ(sum.backward_gemm, 2.0 * sum.forward_gemm);
}

TEST_P(Flops64, GrowWithTheMicroBatches) {
  facts::Job job = small_job(4);
  const Arithmetic64 one = arithmetic_of(program_for(graph_, job, profile_));
  job.train.gradient_accumulation = 5;
  const Arithmetic64 five = arithmetic_of(program_for(graph_, job, profile_));
  EXPECT_EQ(five.forward_gemm, 5.0 * one.forward_gemm);
  EXPECT_EQ(five.backward_attention, 5.0 * one.backward_attention);
}

TEST_P(Flops64, ShardingComputesNothingTwice) {
  const Arithmetic64 alone = arithmetic_of(program_for(graph_, small_job(), profile_));
  for (const Sharding sharding : {Sharding::zero1, Sharding::zero2, Sharding::zero3, Sharding::fsdp,
                                  Sharding::fsdp1, Sharding::shard_grad_op}) {
    facts::Job job = small_job(4);
    job.parallel.sharding = sharding;
    const Arithmetic64 sum = arithmetic_of(program_for(graph_, job, profile_));
    EXPECT_EQ(sum.forward_gemm, alone.forward_gemm) << facts::name_of(sharding);
    EXPECT_EQ(sum.backward_gemm, alone.backward_gemm) << facts::name_of(sharding);
  }
}

TEST_P(Flops64, KernelsAreTheWorkOfOneStep) {
  for (const std::int64_t accumulation : {1, 2, 7}) {
    facts::Job job = small_job(2);
    job.train.gradient_accumulation = accumulation;
    const Program program = program_for(graph_, job, profile_);
    EXPECT_EQ(program.kernels, arithmetic_of(program).kernels) << accumulation;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Flops64,
                         ::testing::Values(small_llama(), small_gpt2(0.1), small_gpt2(0.0)));

// Layers run forward again, except for what lies behind the last saved tensor: the last projection,
// whose result nobody needs (unless a dropout behind it saves its mask).
TEST(Program, RecomputationLeavesOutTheLastProjection) {
  struct Row {
    facts::ModelSource source;
    const char* left_out;
  };
  const facts::FrameworkProfile profile = profile_of("pytorch");
  for (const Row& row : {Row{small_llama(), "mlp.down_proj"}, Row{small_gpt2(0.0), "mlp.c_proj"},
                         Row{small_gpt2(0.1), ""}}) {
    const model::Graph graph = graph_of(row.source);
    facts::Job job = small_job();
    const Arithmetic64 kept = arithmetic_of(program_for(graph, job, profile));
    job.train.recompute.mode = facts::RecomputeMode::full;
    const Arithmetic64 again = arithmetic_of(program_for(graph, job, profile));
    const std::string_view left_out = row.left_out;
    const double head = flops_of(graph, "lm_head");
    const double saved = left_out.empty() ? 0.0 : flops_of(graph, left_out);
    EXPECT_EQ(again.recomputed, model::forward_flops(graph).value() - head - saved);
    EXPECT_EQ(again.forward_gemm, kept.forward_gemm);
    EXPECT_EQ(again.backward_gemm, kept.backward_gemm);
  }
}

std::map<Collective, Bytes> communicated(const Program& program) {
  std::map<Collective, Bytes> sum;
  play(program, program.step, [&](const Event& event, std::int64_t) {
    if (event.kind != EventKind::communicate) return;
    const Communication& entry = program.communication[static_cast<std::size_t>(event.index)];
    sum[entry.kind] += entry.payload;
  });
  return sum;
}

class Communicated : public ::testing::Test {
 protected:
  std::map<Collective, Bytes> of(Sharding sharding) {
    facts::Job job = small_job(4);
    job.parallel.sharding = sharding;
    job.train.gradient_accumulation = kMicroBatches;
    job.train.precision = facts::Precision::bf16;
    return communicated(program_for(graph_, job, profile_of("pytorch")));
  }
  static constexpr std::int64_t kMicroBatches = 3;
  model::Graph graph_ = graph_of(small_llama());
  // Everything is bf16: two bytes a parameter. The layers, and the rest (embedding, norm, head).
  Bytes all_ = Bytes(2 * model::parameter_count(graph_).value());
  Bytes layers_ = Bytes(2 * kLayers * model::parameter_count(graph_.segments[1].blocks[0]).value());
  Bytes root_ = all_ - layers_;
};

TEST_F(Communicated, DdpReducesOnceAStep) {
  EXPECT_EQ(of(Sharding::none), (std::map<Collective, Bytes>{{Collective::all_reduce, all_}}));
}
TEST_F(Communicated, Zero1ReducesOnceAndGathersTheParameters) {
  EXPECT_EQ(of(Sharding::zero1), (std::map<Collective, Bytes>{{Collective::all_reduce, all_},
                                                              {Collective::all_gather, all_}}));
}
TEST_F(Communicated, Zero2ScattersEveryMicroBatch) {
  EXPECT_EQ(of(Sharding::zero2),
            (std::map<Collective, Bytes>{{Collective::reduce_scatter, kMicroBatches * all_},
                                         {Collective::all_gather, all_}}));
}
TEST_F(Communicated, FsdpGathersLayersTwiceAndTheRootOnce) {
  const std::map<Collective, Bytes> expected = {
      {Collective::reduce_scatter, kMicroBatches * all_},
      {Collective::all_gather, kMicroBatches * (2 * layers_ + root_)}};
  EXPECT_EQ(of(Sharding::fsdp), expected);
  EXPECT_EQ(of(Sharding::zero3), expected);
}
TEST_F(Communicated, WithoutReshardingLayersAreGatheredOnce) {
  EXPECT_EQ(of(Sharding::shard_grad_op),
            (std::map<Collective, Bytes>{{Collective::reduce_scatter, kMicroBatches * all_},
                                         {Collective::all_gather, kMicroBatches * all_}}));
}

// fully_shard(model, reshard_after_forward=True): the root is let go of and gathered again.
TEST_F(Communicated, ARootThatIsReshardedIsGatheredTwice) {
  facts::Job job = small_job(4);
  job.parallel.sharding = Sharding::fsdp;
  job.train.gradient_accumulation = kMicroBatches;
  job.train.precision = facts::Precision::bf16;
  const auto gathered = [&](const char* word) {
    facts::FrameworkProfile profile = profile_of("pytorch");
    profile.operators["root_unit"] = word;
    return communicated(program_for(graph_, job, profile)).at(Collective::all_gather);
  };
  EXPECT_EQ(gathered("stays_gathered"), kMicroBatches * (2 * layers_ + root_));
  EXPECT_EQ(gathered("resharded"), kMicroBatches * 2 * all_);
}

TEST(Program, OneGpuCommunicatesNothing) {
  const model::Graph graph = graph_of(small_llama());
  for (const Sharding sharding : {Sharding::none, Sharding::zero2, Sharding::fsdp}) {
    facts::Job job = small_job(1);
    job.parallel.sharding = sharding;
    const Program program = program_for(graph, job, profile_of("pytorch"));
    EXPECT_TRUE(communicated(program).empty());
    EXPECT_EQ(program.communicators, 0);
  }
}

// Megatron-LM's barriers are those of all ranks, beside the groups that its layout makes.
TEST(Program, WhereAllRanksMeetThereIsOneMoreCommunicator) {
  const model::Graph graph = graph_of(small_llama());
  const auto count = [&](std::int64_t ranks, const char* framework) {
    return program_for(graph, small_job(ranks), profile_of(framework)).communicators;
  };
  EXPECT_EQ(count(2, "pytorch"), 1);
  EXPECT_EQ(count(2, "megatron"), 2);
  EXPECT_EQ(count(1, "megatron"), 0);
}

TEST(Program, LossOfMegatronGoesByItsVersion) {
  const auto word = [](const facts::Value& versions) {
    return profile_of("megatron", versions).operators.at("loss");
  };
  EXPECT_EQ(word({}), "vocab_parallel");
  EXPECT_EQ(word(facts::Object{{"megatron-core", "0.8"}}), "vocab_parallel");
  EXPECT_EQ(word(facts::Object{{"megatron-core", "0.7"}}), "vocab_parallel_copied");
}

// bitsandbytes pages states of 100,000 elements and more. Of the small llama these are none; with
// 2048 features the matrices are paged, two states each, and their statistics (1/64) are not.
TEST(Program, PagedOptimizersPageLargeStatesOnly) {
  const auto managed_of = [](const facts::ModelSource& source) {
    facts::Job job = small_job();
    job.train.optimizer.name = facts::OptimizerName::paged_adamw8bit;
    const Program program = program_for(graph_of(source), job, profile_of("transformers"));
    Bytes managed, statistics;
    for (const Slot& slot : program.slots) {
      if (slot.managed) managed += slot.bytes;
      if (program.names[static_cast<std::size_t>(slot.name)] ==
          "statistics of the optimizer state") {
        EXPECT_FALSE(slot.managed);
        statistics += slot.bytes;
      }
    }
    return std::pair(managed, statistics);
  };
  EXPECT_EQ(managed_of(small_llama()).first, Bytes());
  const facts::ModelSource wide = {"wide llama",
                                   facts::Object{{"model_type", "llama"},
                                                 {"hidden_size", 2048},
                                                 {"num_attention_heads", 4},
                                                 {"num_key_value_heads", 2},
                                                 {"intermediate_size", 160},
                                                 {"num_hidden_layers", kLayers},
                                                 {"vocab_size", 500}},
                                   ""};
  const auto [managed, statistics] = managed_of(wide);
  // One layer's q, k, v, o, gate, up, down, then embedding and head; two states of a byte.
  const std::int64_t layer = 2048 * (2048 + 1024 + 1024 + 2048 + 3 * 160);
  EXPECT_EQ(managed, Bytes(2 * (layer + 2 * 500 * 2048)));
  EXPECT_EQ(statistics, Bytes((2 * (layer + 2 * 500 * 2048)) / 64));
}

// FSDP1 wraps a unit at a time: at most one unit lies there twice besides the shards.
TEST(Program, Fsdp1FlattensUnitByUnit) {
  facts::Job job = small_job(4);
  job.parallel.sharding = Sharding::fsdp1;
  const model::Graph graph = graph_of(small_llama());
  const Program program = program_for(graph, job, profile_of("pytorch"));
  Bytes alive, peak, shards;
  std::map<std::pair<std::int32_t, std::int64_t>, Bytes> held;
  play(program, program.setup, [&](const Event& event, std::int64_t instance) {
    const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
    if (event.kind == EventKind::allocate) alive += held[{event.index, instance}] = slot.bytes;
    if (event.kind == EventKind::free) alive -= held[{event.index, instance}];
    peak = std::max(peak, alive);
    const bool parameter = slot.category == facts::VramCategory::parameters;
    if (event.kind == EventKind::allocate && parameter) shards += slot.bytes;
  });
  const Bytes whole = program.states.parameter_bytes;
  EXPECT_EQ(shards, ceil_divide(whole, 4));
  // The root unit is the largest: embedding and head (500 x 64) and a norm (64), in fp32.
  const Bytes root = Bytes(4 * (2 * 500 * 64 + 64));
  EXPECT_GE(peak, root * std::int64_t{2});
  EXPECT_LE(peak, root * std::int64_t{2} + shards + program.states.batch_bytes);
}

// GPT-2's head shares the embedding's weight: its states are there once.
TEST(Program, StatesCountTiedWeightsOnce) {
  const model::Graph graph = graph_of(small_gpt2());
  const std::int64_t parameters = model::parameter_count(graph).value();
  facts::Job job = small_job();
  job.train.precision = facts::Precision::fp32;
  const Program program = program_for(graph, job, profile_of("pytorch"));
  std::map<facts::VramCategory, Bytes> held;
  const auto count = [&](const Event& event, std::int64_t) {
    const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
    held[slot.category] += slot.bytes;
  };
  play(program, program.setup, count);
  play(program, program.first_optimizer, count);
  EXPECT_EQ(held[facts::VramCategory::parameters], Bytes(4 * parameters));
  EXPECT_EQ(held[facts::VramCategory::optimizer], Bytes(8 * parameters));
  EXPECT_EQ(held[facts::VramCategory::batch], Bytes(2 * kSamples * kTokens * 8));  // ids, labels
  EXPECT_EQ(program.states.parameters.value(), parameters);
  EXPECT_EQ(program.states.parameter_bytes, Bytes(4 * parameters));
  EXPECT_EQ(program.states.optimizer_bytes, Bytes(8 * parameters));
}

struct Unsupported {
  const char* key;
  std::function<void(facts::Job&)> set;
};

class Refused : public ::testing::TestWithParam<Unsupported> {};

TEST_P(Refused, NamesTheKey) {
  facts::Job job = small_job();
  GetParam().set(job);
  const auto program = programs_of(graph_of(small_llama()), job, profile_of("pytorch"));
  ASSERT_FALSE(program) << GetParam().key << " was ignored";
  EXPECT_EQ(program.error().code, ErrorCode::not_supported);
  EXPECT_EQ(program.error().subject, GetParam().key);
  EXPECT_FALSE(program.error().found.empty());
  EXPECT_FALSE(program.error().accepted.empty());
}

using facts::Job;

INSTANTIATE_TEST_SUITE_P(
    Keys, Refused,
    ::testing::Values(
        Unsupported{"train.precision",
                    [](Job& j) { j.train.precision = facts::Precision::nvfp4_mixed; }},
        Unsupported{"offload.activations",
                    [](Job& j) { j.offload.activations = facts::OffloadTo::nvme; }},
        Unsupported{"train.memory_format",
                    [](Job& j) { j.train.memory_format = facts::MemoryFormat::channels_last; }},
        Unsupported{"import.megatron", [](Job& j) { j.import.megatron = "args.yaml"; }},
        Unsupported{"import.deepspeed", [](Job& j) { j.import.deepspeed = "ds.json"; }},
        Unsupported{"import.accelerate", [](Job& j) { j.import.accelerate = "fsdp.yaml"; }},
        Unsupported{"import.torchtitan", [](Job& j) { j.import.torchtitan = "a.toml"; }},
        Unsupported{"parallel.schedule",
                    [](Job& j) { j.parallel.schedule = facts::Schedule::dualpipe; }},
        Unsupported{"parallel.async_tensor", [](Job& j) { j.parallel.async_tensor = true; }},
        Unsupported{"model.companions", [](Job& j) { j.model.companions = {{}}; }}),
    [](const auto& row) { return std::to_string(row.index); });

TEST(Program, FusedExpertsAreRefusedWhereThereAreNone) {
  facts::Job job = small_job();
  job.train.fused_kernels = {facts::FusedKernel::moe};
  const auto program = programs_of(graph_of(small_llama()), job, profile_of("pytorch"));
  ASSERT_FALSE(program);
  EXPECT_EQ(program.error().code, ErrorCode::bad_input);
  EXPECT_EQ(program.error().subject, "train.fused_kernels");
}

TEST(Program, ADecodersLengthIsRefusedWhereThereIsNoEncoder) {
  facts::Job job = small_job();
  job.train.decoder_sequence_length = 64;
  const auto program = programs_of(graph_of(small_llama()), job, profile_of("pytorch"));
  ASSERT_FALSE(program);
  EXPECT_EQ(program.error().code, ErrorCode::bad_input);
  EXPECT_EQ(program.error().subject, "train.decoder_sequence_length");
}

TEST(Program, AFrameworkWithoutRulesIsRefused) {
  facts::FrameworkProfile profile;
  profile.name = "unheard-of";
  profile.supported = false;
  const auto program = programs_of(graph_of(small_llama()), small_job(), profile);
  ASSERT_FALSE(program);
  EXPECT_EQ(program.error().code, ErrorCode::not_supported);
  EXPECT_EQ(program.error().subject, "framework");
  EXPECT_EQ(program.error().found, "unheard-of");
}

TEST(Program, AProfileWithAnUnknownVariantSaysWhichAreKnown) {
  facts::FrameworkProfile profile = profile_of("pytorch");
  profile.operators["rms_norm"] = "magic";
  const auto program = programs_of(graph_of(small_llama()), small_job(), profile);
  ASSERT_FALSE(program);
  EXPECT_EQ(program.error().code, ErrorCode::bad_input);
  EXPECT_EQ(program.error().found, "magic");
  EXPECT_EQ(program.error().accepted, "upcast, scaled_wide, native");
}

}  // namespace
}  // namespace steelyard::step
