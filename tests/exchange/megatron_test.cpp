// Megatron-LM's arguments as a job: values, defaults, names, and what is refused.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include "exchange/exchange.h"
#include "megatron_table.h"

namespace steelyard::exchange {
namespace {

using facts::Value;

constexpr const char* kSmall =
    "--num-layers 12 --hidden-size 512 --num-attention-heads 8 --micro-batch-size 4 "
    "--global-batch-size 32 --seq-length 1024 --max-position-embeddings 1024 --bf16 --train-iters "
    "100 ";

Result<facts::Job> job_of(const std::string& arguments, facts::Job job = {}) {
  job.import.megatron = Value(kSmall + arguments);
  return imported(std::move(job), {}, megatron_table());
}

std::string refused(const std::string& arguments) {
  const auto job = job_of(arguments);
  return job ? "accepted" : job.error().subject;
}

TEST(Megatron, FillsTheJob) {
  const auto job = job_of("--tensor-model-parallel-size 2 --pipeline-model-parallel-size 2");
  ASSERT_TRUE(job) << to_text(job.error());
  EXPECT_EQ(job->framework, "megatron");
  EXPECT_EQ(job->train.micro_batch, 4);
  EXPECT_EQ(job->train.global_batch, 32);
  EXPECT_EQ(job->train.sequence_length, 1024);
  EXPECT_EQ(job->train.precision, facts::Precision::bf16);
  EXPECT_EQ(job->train.optimizer.master_weights, true);
  EXPECT_TRUE(job->train.gradient_clipping);  // --clip-grad 1.0 by default
  EXPECT_EQ(job->parallel.tensor, 2);
  EXPECT_EQ(job->parallel.pipeline, 2);
  EXPECT_EQ(job->parallel.sharding, facts::Sharding::none);
  EXPECT_EQ(job->origins.at("train.micro_batch").origin, facts::Origin::import);
  ASSERT_TRUE(job->megatron);
  EXPECT_TRUE(job->megatron->gradient_buffer);
  EXPECT_EQ(job->megatron->main_gradients, facts::DType::fp32);  // bf16 implies it
}

// The row of a table: no word of how long it trains.
facts::Job described(const char* more, facts::Job job = {}) {
  std::string arguments = kSmall;
  arguments.erase(arguments.find("--train-iters"));
  job.import.megatron = Value(arguments + more);
  return *imported(std::move(job), {}, megatron_table());
}

TEST(Megatron, OfADescriptionSwitchesThatOnlyChangeWhenCountAsOn) {
  constexpr const char* kLayout =
      "--tensor-model-parallel-size 2 --sequence-parallel --use-distributed-optimizer ";
  const facts::Job row = described(kLayout);
  EXPECT_TRUE(row.megatron->overlaps_reduction);
  EXPECT_EQ(row.megatron->operators.at("parameter_gathers"), "beside_forward");
  EXPECT_TRUE(row.parallel.async_tensor);
  EXPECT_EQ(
      row.megatron->assumed_switches,
      (std::vector<std::string>{"overlap-grad-reduce", "overlap-param-gather", "tp-comm-overlap"}));
  const auto whole = job_of(kLayout);
  ASSERT_TRUE(whole);
  EXPECT_FALSE(whole->megatron->overlaps_reduction);
  EXPECT_FALSE(whole->parallel.async_tensor);
  EXPECT_TRUE(whole->megatron->assumed_switches.empty());
}

TEST(Megatron, ADescriptionMaySayThatASwitchIsOff) {
  const facts::Job row = described("--no-overlap-grad-reduce --tensor-model-parallel-size 2 ");
  EXPECT_FALSE(row.megatron->overlaps_reduction);
  EXPECT_FALSE(row.parallel.async_tensor);  // nothing is gathered without sequence parallelism
  EXPECT_TRUE(row.megatron->assumed_switches.empty());
}

constexpr const char* kExperts =
    "--num-experts 8 --moe-grouped-gemm --tensor-model-parallel-size 1 "
    "--expert-model-parallel-size ";

TEST(Megatron, OfADescriptionSpreadExpertsHaveTheirDispatcherAndGraphs) {
  const facts::Job row = described(fmt::format("{} 4", kExperts).c_str());
  EXPECT_EQ(row.megatron->operators.at("exchanges"), "by_rank");
  EXPECT_EQ(row.megatron->operators.at("launches"), "graphs_of_modules");
  EXPECT_EQ(row.megatron->assumed_values.size(), 3U);
  // Experts that stay at home, and a whole command line, mean what they say.
  EXPECT_TRUE(described(fmt::format("{} 1", kExperts).c_str()).megatron->assumed_values.empty());
  const auto whole = job_of(fmt::format("{} 4", kExperts));
  ASSERT_TRUE(whole);
  EXPECT_EQ(whole->megatron->operators.count("launches"), 0U);
  EXPECT_TRUE(whole->megatron->assumed_values.empty());
}

TEST(Megatron, WhatADescriptionSaysOfItsExpertsIsNotAssumed) {
  const facts::Job row = described(
      fmt::format("{} 4 --moe-token-dispatcher-type alltoall --recompute-granularity selective",
                  kExperts)
          .c_str());
  EXPECT_EQ(row.megatron->operators.count("exchanges"), 0U);
  EXPECT_EQ(row.megatron->operators.count("launches"), 0U);
  EXPECT_TRUE(row.megatron->assumed_values.empty());
}

TEST(Megatron, ADescriptionMaySayThatItHasNoGraphs) {
  const facts::Job row = described(
      fmt::format("{} 4 --recompute-granularity selective --moe-expert-capacity-factor 1.0",
                  kExperts)
          .c_str());
  EXPECT_TRUE(row.megatron->assumed_values.empty());
  facts::Job file;
  file.import.megatron = Value(facts::Object{{"num-layers", 2},
                                             {"hidden-size", 64},
                                             {"num-attention-heads", 4},
                                             {"seq-length", 32},
                                             {"max-position-embeddings", 32},
                                             {"micro-batch-size", 1},
                                             {"global-batch-size", 4},
                                             {"vocab-size", 128},
                                             {"bf16", true},
                                             {"num-experts", 8},
                                             {"moe-grouped-gemm", true},
                                             {"expert-model-parallel-size", 4},
                                             {"enable-cuda-graph", false},
                                             {"moe-enable-deepep", false}});
  const auto job = imported(std::move(file), {}, megatron_table());
  ASSERT_TRUE(job) << job.error().subject << job.error().found;
  EXPECT_TRUE(job->megatron->assumed_values.empty());  // refused arguments that say no
}

TEST(Megatron, DenseLayersAndOlderSoftwareHaveNoDispatcher) {
  EXPECT_TRUE(described("--expert-model-parallel-size 4 ").megatron->assumed_values.empty());
  facts::Job older;
  older.versions = facts::Object{{"megatron-core", "0.6"}};
  const facts::Job row = described(fmt::format("{} 4", kExperts).c_str(), std::move(older));
  EXPECT_TRUE(row.megatron->assumed_values.empty());
}

TEST(Megatron, ForksHaveOtherSwitches) {
  facts::Job fork;
  fork.versions = facts::Object{{"megatron-deepspeed", "2021.11"}};
  EXPECT_FALSE(described("", fork).megatron->overlaps_reduction);
  facts::Job sharded;
  sharded.parallel.sharding = facts::Sharding::zero1;
  sharded.origins["parallel.sharding"] = {facts::Origin::job, {}};
  EXPECT_FALSE(described("", sharded).megatron->overlaps_reduction);
}

TEST(Megatron, TheJobsOwnKeysCountMore) {
  facts::Job own;
  own.train.micro_batch = 1;
  own.origins["train.micro_batch"] = {facts::Origin::job, 3};
  const auto job = job_of("", own);
  ASSERT_TRUE(job);
  EXPECT_EQ(job->train.micro_batch, 1);
  EXPECT_EQ(job->origins.at("train.micro_batch").origin, facts::Origin::job);
}

void set_own(facts::Job& job, const char* key) {
  job.origins[key] = {facts::Origin::job, {}};
}

// As a search does: what the layout says counts more, the rest follows from it.
TEST(Megatron, ImportsAnImportedJobAgain) {
  const auto first = job_of(
      "--tensor-model-parallel-size 2 --pipeline-model-parallel-size 2 --vocab-size 50257 "
      "--recompute-granularity selective --recompute-modules layernorm "
      "--account-for-embedding-in-pipeline-split --account-for-loss-in-pipeline-split");
  ASSERT_TRUE(first) << to_text(first.error());
  EXPECT_TRUE(first->parallel.stage_layers.empty());  // (12 + 2) / 2: six layers on each
  facts::Job changed = *first;
  changed.parallel.tensor = 4;
  changed.parallel.pipeline = 7;
  changed.train.recompute = {};
  for (const char* key : {"parallel.tensor", "parallel.pipeline", "train.recompute"}) {
    set_own(changed, key);
  }
  const auto again = imported(changed, {}, megatron_table());
  ASSERT_TRUE(again) << to_text(again.error());
  EXPECT_EQ(again->parallel.tensor, 4);
  EXPECT_EQ(again->parallel.pipeline, 7);
  EXPECT_EQ(again->parallel.stage_layers, (std::vector<std::int64_t>{1, 2, 2, 2, 2, 2, 1}));
  EXPECT_EQ(std::get<Value>(again->model.config).find("tensor-model-parallel-size")->as_whole()[0],
            4);
  EXPECT_TRUE(again->megatron->recomputed_modules.empty());
  changed.parallel.pipeline = 5;  // 14 layers over five stages
  EXPECT_FALSE(imported(changed, {}, megatron_table()));
}

TEST(Megatron, InterleavesAsTheJobSays) {
  facts::Job own;
  own.parallel.pipeline = 2;
  own.parallel.virtual_stages = 3;
  for (const char* key : {"parallel.pipeline", "parallel.virtual_stages"}) set_own(own, key);
  const auto job = job_of("", own);
  ASSERT_TRUE(job) << to_text(job.error());
  EXPECT_EQ(job->parallel.schedule, facts::Schedule::interleaved);
  own.parallel.virtual_stages = 4;  // six layers in four chunks
  EXPECT_FALSE(job_of("", own));
}

// SwiGLU: 4 x 512 x 2 / 3 = 1365, in multiples of 64: 1344. Vocabulary is the tokenizer's.
TEST(Megatron, FillsTheModel) {
  const auto job = job_of("--swiglu --group-query-attention --num-query-groups 2");
  ASSERT_TRUE(job);
  const Value& config = std::get<Value>(job->model.config);
  EXPECT_EQ(*config.find("model_type"), Value("megatron_gpt"));
  EXPECT_EQ(*config.find("ffn-hidden-size"), Value(1344));
  EXPECT_EQ(*config.find("num-query-groups"), Value(2));
  EXPECT_EQ(*config.find("kv-channels"), Value(64));
  EXPECT_TRUE(config.find("vocab-size")->is_null());
  EXPECT_EQ(*config.find("hidden-dropout"), Value(0.1));
}

// Nothing but the decoder's arguments tells T5 from GPT: the script that reads them is none.
TEST(Megatron, TellsAnEncoderDecoder) {
  const auto job = job_of("--decoder-num-layers 6 --decoder-seq-length 128");
  ASSERT_TRUE(job) << to_text(job.error());
  EXPECT_EQ(job->train.sequence_length, 1024);
  EXPECT_EQ(job->train.decoder_sequence_length, 128);
  const Value& config = std::get<Value>(job->model.config);
  EXPECT_EQ(*config.find("model_type"), Value("megatron_t5"));
  EXPECT_EQ(*config.find("decoder-num-layers"), Value(6));
}

TEST(Megatron, TakesOtherSpellings) {
  EXPECT_EQ(refused("--disable-bias-linear --no-rope-fusion"), "accepted");
  const auto job = job_of("--use_distributed_optimizer --use-flash-attn --recompute-activations");
  ASSERT_TRUE(job) << to_text(job.error());
  EXPECT_TRUE(job->megatron->distributed_optimizer);
  EXPECT_EQ(job->train.recompute.mode, facts::RecomputeMode::selective);
  const auto plain = job_of("--disable-bias-linear");
  EXPECT_EQ(*std::get<Value>(plain->model.config).find("add-bias-linear"), Value(false));
}

TEST(Megatron, SequenceParallelNeedsTensorParallel) {
  EXPECT_FALSE(job_of("--sequence-parallel")->parallel.sequence_parallel);
  EXPECT_TRUE(
      job_of("--sequence-parallel --tensor-model-parallel-size 2")->parallel.sequence_parallel);
}

TEST(Megatron, RefusesByName) {
  EXPECT_EQ(refused("--num-layer 3"), "import.megatron.num-layer");
  EXPECT_EQ(refused("--optimizer shampoo"), "import.megatron.optimizer");
  EXPECT_EQ(refused("--perform-rl-step"), "import.megatron.perform-rl-step");
  EXPECT_EQ(refused("--num-layers many"), "import.megatron.num-layers");
  EXPECT_EQ(refused("--swiglu 3"), "import.megatron.swiglu");
  EXPECT_EQ(refused("--recompute-granularity full"), "import.megatron.recompute-method");
  EXPECT_EQ(refused("--batch-size 3"), "import.megatron.batch-size");
  const auto misspelt = job_of("--tensor-model-paralel-size 2");
  ASSERT_FALSE(misspelt);
  EXPECT_EQ(misspelt.error().hint, "did you mean tensor-model-parallel-size?");
}

TEST(Megatron, StepsOnTheHostWhatItIsAskedTo) {
  const std::string given =
      "--optimizer-cpu-offload --use-precision-aware-optimizer --use-distributed-optimizer ";
  EXPECT_EQ(job_of("")->offload.optimizer, facts::OffloadTo::none);
  EXPECT_EQ(job_of(given)->offload.optimizer, facts::OffloadTo::cpu);
  EXPECT_TRUE(job_of(given)->offload.pin_memory);
  EXPECT_FALSE(job_of(given + "--no-pin-cpu-grads --no-pin-cpu-params")->offload.pin_memory);
  EXPECT_EQ(refused(given + "--no-pin-cpu-grads"), "import.megatron.pin-cpu-grads");
  EXPECT_EQ(refused(given + "--optimizer-offload-fraction 0.5"),
            "import.megatron.optimizer-offload-fraction");
  EXPECT_EQ(refused("--optimizer-cpu-offload"), "import.megatron.optimizer-cpu-offload");
}

// What changes memory and is not built is refused by name; words that Megatron-LM does not have
// too.
TEST(Megatron, KnowsTheWordsOfItsArguments) {
  const std::string experts = "--num-experts 8 ";
  EXPECT_EQ(refused(experts + "--moe-token-dispatcher-type foo"),
            "import.megatron.moe-token-dispatcher-type");
  EXPECT_EQ(refused(experts + "--moe-router-load-balancing-type foo"),
            "import.megatron.moe-router-load-balancing-type");
  EXPECT_EQ(refused(experts + "--moe-token-dispatcher-type flex --moe-flex-dispatcher-backend foo"),
            "import.megatron.moe-flex-dispatcher-backend");
  EXPECT_EQ(refused(experts + "--moe-token-dispatcher-type alltoall"), "accepted");
  EXPECT_EQ(refused("--recompute-granularity selective --recompute-method uniform"),
            "import.megatron.recompute-method");
  EXPECT_EQ(refused("--bf16 --transformer-impl local --no-masked-softmax-fusion"),
            "import.megatron.attention-softmax-in-fp32");
  EXPECT_EQ(refused("--ddp-num-buckets 4"), "import.megatron.ddp-num-buckets");
  for (const char* name :
       {"deallocate-pipeline-outputs", "fp8-wgrad", "clone-scatter-output-in-embedding"}) {
    EXPECT_EQ(refused(std::string("--") + name + " false"), std::string("import.megatron.") + name);
    EXPECT_EQ(refused(std::string("--") + name + " true"), "accepted");
  }
}

TEST(Megatron, SaysWhichKernelsAreOne) {
  const auto fused = [](const char* more) {
    const auto job = job_of(std::string("--swiglu ") + more);
    EXPECT_TRUE(job) << more;
    const Value* config = job ? std::get_if<Value>(&job->model.config) : nullptr;
    return config != nullptr && *config->find("bias-activation-fusion") == Value(true);
  };
  EXPECT_TRUE(fused(""));
  EXPECT_TRUE(fused("--no-bias-gelu-fusion"));
  EXPECT_FALSE(fused("--no-bias-swiglu-fusion"));
  EXPECT_EQ(job_of("--no-rope-fusion")->megatron->operators.at("rotary"), "joined");
  EXPECT_FALSE(job_of("")->megatron->operators.contains("rotary"));
  const auto words = job_of("--no-create-attention-mask-in-dataloader")->megatron->operators;
  EXPECT_EQ(words.at("attention_mask"), "none");
  EXPECT_EQ(job_of("")->megatron->operators.at("attention_mask"), "in_batch");
}

TEST(Megatron, KnowsWhatLegacyLayersDo) {
  const std::string legacy = "--swiglu --use-flash-attn --use-legacy-models ";
  const auto job = job_of(legacy + "--transformer-impl local");
  ASSERT_TRUE(job);
  EXPECT_EQ(job->train.attention, facts::Attention::flash);
  EXPECT_EQ(*std::get<Value>(job->model.config).find("bias-activation-fusion"), Value(false));
  const auto& words = job->megatron->operators;
  EXPECT_EQ(words.at("key_value_repeat"), "repeat");
  EXPECT_EQ(words.at("rotary"), "joined");
  EXPECT_EQ(words.at("attention_backend"), "torch");
  // With Transformer Engine they are its own TransformerLayer.
  const auto engine = job_of(legacy + "--transformer-impl transformer_engine");
  EXPECT_EQ(*std::get<Value>(engine->model.config).find("bias-activation-fusion"), Value(true));
  EXPECT_FALSE(engine->megatron->operators.contains("key_value_repeat"));
}

TEST(Megatron, MultipliesAttentionAndLogitsInFp8) {
  const std::string mx = "--bf16 --fp8-format e4m3 --fp8-recipe mxfp8 ";
  const std::string own = "--untie-embeddings-and-output-weights ";
  const auto words =
      job_of(mx + own + "--fp8-dot-product-attention --fp8-output-proj")->megatron->operators;
  EXPECT_EQ(words.at("fp8_attention"), "cast");
  EXPECT_EQ(words.at("fp8_logits"), "cast");
  EXPECT_FALSE(job_of(mx)->megatron->operators.contains("fp8_attention"));
  EXPECT_EQ(refused("--bf16 --fp8-dot-product-attention"),
            "import.megatron.fp8-dot-product-attention");
  EXPECT_EQ(
      refused("--bf16 --fp8-format hybrid --fp8-recipe tensorwise " + own + "--fp8-output-proj"),
      "import.megatron.fp8-output-proj");
  EXPECT_EQ(refused(mx + "--fp8-dot-product-attention --context-parallel-size 2"),
            "import.megatron.fp8-dot-product-attention");
  EXPECT_EQ(refused(mx + "--fp8-output-proj"), "import.megatron.fp8-output-proj");
  EXPECT_EQ(refused(mx + own + "--fp8-output-proj --fp8-param-gather"),
            "import.megatron.fp8-output-proj");
}

TEST(Megatron, SaysWhatTheHostWaitsForAndWhatRunsBesideExchanges) {
  const std::string experts = "--num-experts 8 --moe-token-dispatcher-type alltoall ";
  const auto says = [&](const std::string& more, const char* word) {
    const auto job = job_of(experts + more);
    EXPECT_TRUE(job) << more;
    const auto& words = job->megatron->operators;
    const auto found = words.find(word);
    return found == words.end() ? std::string() : found->second;
  };
  EXPECT_EQ(says("", "expert_counts"), "");  // as the profile says
  EXPECT_EQ(
      says("--moe-expert-capacity-factor 1.0 --moe-pad-expert-input-to-capacity", "expert_counts"),
      "on_card");
  EXPECT_EQ(says("--overlap-moe-expert-parallel-comm", "expert_counts"), "on_card");
  EXPECT_EQ(says("--moe-shared-expert-overlap", "shared_experts"), "beside_exchanges");
  EXPECT_EQ(refused(experts + "--moe-shared-expert-overlap --overlap-moe-expert-parallel-comm"),
            "import.megatron.moe-shared-expert-overlap");
  EXPECT_EQ(refused("--num-experts 8 --moe-shared-expert-overlap"),
            "import.megatron.moe-shared-expert-overlap");
}

TEST(Megatron, IgnoresWhatChangesNothing) {
  EXPECT_EQ(refused("--lr 1e-4 --log-interval 1 --save-interval 50 --no-check-for-nan-in-loss-and-"
                    "grad --no-save-optim --adam-beta1 0.9"),
            "accepted");
}

TEST(Megatron, AcceptsRefusedOnesThatAreOff) {
  facts::Job job;
  job.import.megatron = Value(facts::Object{{"num-layers", 12},
                                            {"hidden_size", 512},
                                            {"num-attention-heads", 8},
                                            {"micro-batch-size", 1},
                                            {"seq-length", 128},
                                            {"max-position-embeddings", 128},
                                            {"perform-rl-step", false},
                                            {"moe-dispatch-fwd-dtype", "bf16"},
                                            {"sft", false}});
  EXPECT_TRUE(imported(job, {}, megatron_table()));
}

// Another engine holds the states when the job says how they are sharded.
TEST(Megatron, LeavesTheStatesToDeepSpeed) {
  facts::Job own;
  own.parallel.sharding = facts::Sharding::zero1;
  own.origins["parallel.sharding"] = {facts::Origin::job, {}};
  const auto job = job_of("", own);
  ASSERT_TRUE(job);
  EXPECT_FALSE(job->megatron->gradient_buffer);
}

// parallel_state.py: the experts are cut over the tensor-parallel ranks where a stage has as many
// for each part of them.
TEST(Megatron, CutsExpertsWhereRanksSuffice) {
  const auto cut = [](const std::string& arguments) {
    facts::Job own;
    own.machine.gpus = 8;
    const auto job = job_of("--num-experts 8 --tensor-model-parallel-size 2 " + arguments, own);
    return job ? job->parallel.expert_tensor : -1;
  };
  EXPECT_EQ(cut("--expert-model-parallel-size 4"), 2);
  EXPECT_EQ(cut("--expert-model-parallel-size 8"), 1);
  EXPECT_EQ(cut("--expert-model-parallel-size 4 --pipeline-model-parallel-size 2"), 1);
  EXPECT_EQ(cut("--expert-model-parallel-size 8 --expert-tensor-parallel-size 2"), 2);
}

// mcore_fsdp_adapter.py: no buffer of whole gradients, shards that stay, in a type of their own.
TEST(Megatron, ShardsAsItsFsdpDoes) {
  const std::string given = "--use-megatron-fsdp --use-distributed-optimizer ";
  const auto job = job_of(given);
  ASSERT_TRUE(job) << to_text(job.error());
  EXPECT_EQ(job->parallel.sharding, facts::Sharding::fsdp);
  EXPECT_FALSE(job->megatron->gradient_buffer);
  EXPECT_FALSE(job->megatron->distributed_optimizer);
  EXPECT_EQ(job->megatron->operators.at("gradient_shards"), "kept");
  EXPECT_EQ(job->megatron->main_gradients, facts::DType::fp32);
  EXPECT_EQ(job_of(given + "--megatron-fsdp-main-grads-dtype bf16")->megatron->main_gradients,
            facts::DType::bf16);
  EXPECT_EQ(refused(given + "--data-parallel-sharding-strategy optim_grads"),
            "import.megatron.data-parallel-sharding-strategy");
  EXPECT_FALSE(job_of("")->megatron->operators.contains("gradient_shards"));
}

// One for products, four for grouped ones, three beside user buffers.
TEST(Megatron, CountsTheEnginesWorkspaces) {
  const auto workspaces = [](const std::string& arguments) {
    const auto job = job_of(arguments);
    return job ? job->megatron->engine_workspaces : -1;
  };
  EXPECT_EQ(workspaces(""), 1);
  EXPECT_EQ(workspaces("--tensor-model-parallel-size 2 --sequence-parallel --tp-comm-overlap"), 4);
}

// Every argument stands in the table once: understood, another spelling, refused or ignored.
TEST(Megatron, TheTableNamesEachArgumentOnce) {
  std::map<std::string, int> seen;
  const Value& table = megatron_table();
  for (const auto& [section, members] : *table.find("understood")->as_object()) {
    for (const auto& [name, rule] : *members.as_object()) ++seen[name];
  }
  for (const auto& [name, rule] : *table.find("alias")->as_object()) ++seen[name];
  for (const char* section : {"refused", "ignored"}) {
    for (const Value& group : *table.find(section)->as_array()) {
      for (const Value& name : *group.find("arguments")->as_array()) ++seen[*name.as_text()];
    }
  }
  EXPECT_GT(seen.size(), 700U);
  for (const auto& [name, times] : seen) EXPECT_EQ(times, 1) << name;
}

}  // namespace
}  // namespace steelyard::exchange
