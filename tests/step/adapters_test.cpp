// Low-rank adapters and quantized bases: what is held, what trains, which modules are meant.
#include "step/adapters.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "small_jobs.h"
#include "step/block_trace.h"
#include "step/player.h"
#include "step/weight_storage.h"

namespace steelyard::step {
namespace {

using facts::BaseQuantization;
using facts::DType;
using facts::Method;

facts::Job lora_job(std::vector<std::string> targets) {
  facts::Job job = small_job();
  job.train.method = Method::lora;
  job.train.lora.rank = 8;
  job.train.lora.targets = std::move(targets);
  job.train.precision = facts::Precision::bf16;
  return job;
}

facts::Job qlora_job(BaseQuantization how) {
  facts::Job job = lora_job({"q_proj", "v_proj"});
  job.train.method = Method::qlora;
  job.train.base_quantization = how;
  return job;
}

std::int64_t trainable(const facts::ModelSource& model, const facts::Job& job,
                       const AdapterHabits& habits = {}) {
  const auto graph = with_method(graph_of(model), job, habits);
  EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  return graph ? trained_elements(*graph) : 0;
}

// small_llama: hidden 64, 4 heads of 16, 2 of keys and values, feed-forward 160, 3 layers, rank 8.
TEST(Adapters, OfTwoProjections) {
  // q: 8 * (64 + 64), v: 8 * (64 + 32); three layers.
  EXPECT_EQ(trainable(small_llama(), lora_job({"q_proj", "v_proj"})), 3 * 8 * (128 + 96));
}

TEST(Adapters, OfAllLinearsLeaveOutTheHead) {
  // q, o: 128 each; k, v: 96 each; gate, up, down: 224 each.
  EXPECT_EQ(trainable(small_llama(), lora_job({"all-linear"})),
            3 * 8 * (2 * 128 + 2 * 96 + 3 * 224));
}

// peft 0.21 counts a name's end and a pattern of whole layers the same way.
TEST(Adapters, OfSingleLayers) {
  const std::int64_t q = 8 * (64 + 64);
  const std::int64_t up = 8 * (64 + 160);
  EXPECT_EQ(trainable(small_llama(), lora_job({"layers.0.self_attn.q_proj"})), q);
  EXPECT_EQ(trainable(small_llama(), lora_job({"model.layers.1.mlp.up_proj", "q_proj"})),
            3 * q + up);
  EXPECT_EQ(trainable(small_llama(), lora_job({"model.layers.*.self_attn.q_proj"})), 3 * q);
  EXPECT_FALSE(with_method(graph_of(small_llama()), lora_job({"layers.7.self_attn.q_proj"}), {}));
  const facts::Job job = lora_job({"layers.1.self_attn.q_proj"});
  const auto graph = with_method(graph_of(small_llama()), job, {});
  ASSERT_TRUE(graph);
  EXPECT_EQ(graph->segments.size(), 5u);  // embed, a layer of each kind, head
  expect_balanced(program_for(graph_of(small_llama()), job, profile_of("transformers")),
                  "adapter of one layer");
}

TEST(Adapters, BesideALayerThatTrains) {
  facts::Job job = lora_job({"q_proj"});
  job.train.trainable = {"layers.2"};
  // 64 x 64 twice, 64 x 32 twice, 64 x 160 thrice and two norms of 64.
  EXPECT_EQ(trainable(small_llama(), job), 3 * 8 * 128 + 43136);
}

TEST(Adapters, OfAFusedProjection) {
  // PEFT adapts c_attn [64 -> 192] whole; by its parts q and v: one A of 16 rows, B of 128 columns.
  EXPECT_EQ(trainable(small_gpt2(), lora_job({"c_attn"})), 3 * 8 * (64 + 192));
  AdapterHabits parts;
  parts.adapts_fused_parts = true;
  EXPECT_EQ(trainable(small_gpt2(), lora_job({"q_proj", "v_proj"}), parts),
            3 * (16 * 64 + 128 * 8));
}

// peft 0.21, LoraConfig(r=8, target_modules=["embed_tokens"]) over LlamaForCausalLM of these sizes:
// 8 x 500 and 64 x 8; with q_proj 3 x 8 x 128 more.
TEST(Adapters, OfEmbeddings) {
  EXPECT_EQ(trainable(small_llama(), lora_job({"embed_tokens"})), 4512);
  EXPECT_EQ(trainable(small_llama(), lora_job({"embed_tokens", "q_proj"})), 7584);
  const Program program =
      program_for(graph_of(small_llama()), lora_job({"embed_tokens"}), profile_of("transformers"));
  expect_balanced(program, "adapter of an embedding");
}

// peft 0.21, LoraConfig(r=4, target_modules=["convolution"]) over ResNetForImageClassification of
// ResNet-18's sizes: 143,692.
TEST(Adapters, OfConvolutions) {
  const auto catalog =
      catalog::Catalog::at(std::filesystem::path(STEELYARD_SOURCE_DIR) / "catalog");
  const auto resnet = catalog.model("resnet-18");
  ASSERT_TRUE(resnet);
  const auto graph = model::build(*resnet, {.batch = 2});
  ASSERT_TRUE(graph);
  facts::Job job = lora_job({"convolution"});
  job.train.lora.rank = 4;
  job.train.sequence_length.reset();
  const auto adapted = with_method(*graph, job, {});
  ASSERT_TRUE(adapted);
  EXPECT_EQ(trained_elements(*adapted), 143'692);
  expect_balanced(program_for(*graph, job, profile_of("transformers")), "adapted ResNet");
}

TEST(Adapters, WithoutTargetsTakeWhatPeftTakes) {
  EXPECT_EQ(trainable(small_llama(), lora_job({})),
            trainable(small_llama(), lora_job({"q_proj", "v_proj"})));
  EXPECT_EQ(trainable(small_gpt2(), lora_job({})), trainable(small_gpt2(), lora_job({"c_attn"})));
}

TEST(Adapters, TrainModulesBesideTheirFrozenOriginals) {
  facts::Job job = lora_job({"q_proj"});
  job.train.lora.trainable = {"embed_tokens"};
  EXPECT_EQ(trainable(small_llama(), job), 3 * 8 * 128 + 500 * 64);
  const model::Graph plain = graph_of(small_llama());
  const auto graph = with_method(plain, job, {});
  ASSERT_TRUE(graph);
  EXPECT_EQ(model::parameter_count(*graph).value(),
            model::parameter_count(plain).value() + 3 * 8 * 128 + 500 * 64);
}

TEST(Adapters, OfNothingAreAnErrorThatNamesTheLinears) {
  const auto graph = with_method(graph_of(small_llama()), lora_job({"query"}), {});
  ASSERT_FALSE(graph);
  EXPECT_EQ(graph.error().subject, "train.lora.targets");
  EXPECT_EQ(graph.error().found, "query");
  EXPECT_NE(graph.error().accepted.find("down_proj"), std::string::npos);
}

// PEFT passes over a name that the model lacks beside one that it has; nearly a module's name it is
// a slip of the pen.
TEST(Adapters, ATargetThatNamesNothing) {
  EXPECT_EQ(trainable(small_llama(), lora_job({"q_proj", "c_attn"})), 3 * 8 * 128);
  // Names of other families are no slips, however near: q_proj beside GPT-2's c_proj.
  EXPECT_EQ(trainable(small_gpt2(), lora_job({"c_attn", "q_proj"})), 3 * 8 * (64 + 192));
  const auto refused = [](std::vector<std::string> targets) {
    const auto graph = with_method(graph_of(small_llama()), lora_job(std::move(targets)), {});
    return graph ? Error() : graph.error();
  };
  EXPECT_EQ(refused({"q_proj", "v_porj"}).found, "v_porj");
  EXPECT_NE(refused({"q_proj", "v_porj"}).hint.find("v_proj"), std::string::npos);
  const Error norm = refused({"q_proj", "input_layernorm"});
  EXPECT_EQ(norm.code, ErrorCode::not_supported);
  EXPECT_NE(norm.found.find("input_layernorm"), std::string::npos);
}

model::Graph catalogue_graph(const std::string& id, const facts::Value& set) {
  const auto catalog =
      catalog::Catalog::at(std::filesystem::path(STEELYARD_SOURCE_DIR) / "catalog");
  auto source = catalog.model(id);
  EXPECT_TRUE(source);
  for (const auto& [key, value] : *set.as_object()) source->config.set(key, value);
  auto graph = model::build(*source, {.batch = 1, .sequence = 64});
  EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  return graph.value_or(model::Graph());
}

// peft 0.21, r = 16: Qwen1.5-MoE-A2.7B has 247,726,080 in its 24 layers, Qwen3-30B-A3B 281,542,656
// in its 48.
TEST(Adapters, OfExpertsAreEachExpertsOwn) {
  auto job = lora_job({"gate_proj", "up_proj", "down_proj"});
  job.train.lora.rank = 16;
  const auto qwen = catalogue_graph("qwen1.5-moe-a2.7b", facts::Object{{"num_hidden_layers", 2}});
  const auto graph = with_method(qwen, job, {});
  ASSERT_TRUE(graph) << to_text(graph.error());
  EXPECT_EQ(trained_elements(*graph), 247'726'080 / 24 * 2);
  const auto qwen3 = catalogue_graph("qwen3-30b-a3b", facts::Object{{"num_hidden_layers", 2}});
  job.train.lora.targets = {"q_proj", "down_proj"};
  const auto down = with_method(qwen3, job, {});
  ASSERT_TRUE(down) << to_text(down.error());
  EXPECT_EQ(trained_elements(*down), 281'542'656 / 48 * 2);
  const model::Graph plain = without_adapters(*down);
  for (const model::Operator& op : plain.segments.at(1).blocks.front().operators) {
    if (op.kind == model::OperatorKind::experts) {
      EXPECT_EQ(std::ssize(op.weights), 3 * op.mixture.experts);
    }
  }
  facts::Job spread = job;  // over two ranks
  spread.parallel.expert = 2;
  const auto refused = with_method(qwen, spread, {});
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().found.find("mlp.experts.0"), std::string::npos);
}

// Two experts of four, adapted: the trace frees what it allocates.
TEST(Adapters, OfExpertsKeepWhatTheyNeed) {
  const auto graph = catalogue_graph(
      "qwen1.5-moe-a2.7b",
      facts::Object{{"num_hidden_layers", 2}, {"num_experts", 4}, {"num_experts_per_tok", 2}});
  for (const char* target : {"all-linear", "gate_proj"}) {
    expect_balanced(program_for(graph, lora_job({target}), profile_of("transformers")), target);
  }
}

TEST(Adapters, DefaultsOfEncodersAreQueryAndValue) {
  const auto bert = catalogue_graph("bert-base-uncased", facts::Object{});
  const auto graph = with_method(bert, lora_job({}), {});
  ASSERT_TRUE(graph) << to_text(graph.error());
  EXPECT_EQ(trained_elements(*graph), 12 * 2 * 8 * (768 + 768));
  const auto t5 = with_method(catalogue_graph("t5-small", facts::Object{}), lora_job({}), {});
  ASSERT_TRUE(t5) << to_text(t5.error());
  EXPECT_EQ(trained_elements(*t5), 18 * 2 * 8 * (512 + 512));
}

TEST(MethodKeys, WithoutTheirMethodAreErrors) {
  const auto subject = [](const std::function<void(facts::Job&)>& set) {
    facts::Job job = small_job();
    set(job);
    const auto program = programs_of(graph_of(small_llama()), job, profile_of("pytorch"));
    return program ? std::string() : program.error().subject;
  };
  EXPECT_EQ(subject([](facts::Job& j) { j.train.lora.targets = {"q_proj"}; }), "train.lora");
  EXPECT_EQ(subject([](facts::Job& j) { j.train.base_quantization = BaseQuantization::nf4; }),
            "train.base_quantization");
  EXPECT_EQ(subject([](facts::Job& j) { j.train.unquantized = facts::ShortPrecision::fp32; }),
            "train.unquantized");
  EXPECT_EQ(subject([](facts::Job& j) { j.train.method = Method::qlora; }),
            "train.base_quantization");
  EXPECT_EQ(subject([](facts::Job& j) {
              j.train.method = Method::lora;
              j.train.lora.rank = 0;
            }),
            "train.lora.rank");
}

// 4096 x 4096 = 16,777,216 elements: 8,388,608 B packed, 262,144 statistics.
struct StorageRow {
  BaseQuantization how;
  bool nested;
  std::int64_t bytes;
};
class Storage4096 : public ::testing::TestWithParam<StorageRow> {};

TEST_P(Storage4096, IsThatOfTheFormat) {
  Layout layout;
  layout.arithmetic.compute = DType::bf16;
  layout.quantization = GetParam().how;
  layout.nested_statistics = GetParam().nested;
  model::Weight weight;
  weight.shape = {4096, 4096};
  weight.trains = false;
  weight.quantized = true;
  EXPECT_EQ(held_bytes(layout, weight).value(), GetParam().bytes);
}

INSTANTIATE_TEST_SUITE_P(
    Formats, Storage4096,
    ::testing::Values(
        // statistics in fp32, 16 code words
        StorageRow{BaseQuantization::nf4, false, 8'388'608 + 4 * 262'144 + 64},
        // statistics of a byte, an fp32 scale per 256 of them, an offset, 16 code words
        StorageRow{BaseQuantization::nf4_dq, true, 8'388'608 + 262'144 + 4 * 1'024 + 4 + 64},
        StorageRow{BaseQuantization::nf4, true, 8'388'608 + 262'144 + 4 * 1'024 + 4 + 64},
        StorageRow{BaseQuantization::fp4, false, 8'388'608 + 4 * 262'144 + 64},
        StorageRow{BaseQuantization::int8, false, 16'777'216 + 4 * 4'096},
        // 32 groups of 128: zeros 32 * 4096 / 2 B, scales 32 * 4096 * 2 B, an index per input
        StorageRow{BaseQuantization::gptq_int4, false, 8'388'608 + 65'536 + 262'144 + 16'384}));

// NF4Tensor: FSDP2 cuts and gathers the statistics too. What bitsandbytes keeps beside its packed
// parameter stays whole.
TEST(Qlora, ShardsTheStatisticsOfATensorSubclass) {
  Layout layout;
  layout.quantization = BaseQuantization::nf4_dq;
  model::Weight weight;
  weight.shape = {4096, 4096};
  weight.quantized = true;
  EXPECT_EQ(gathered_bytes(layout, weight).value(), 8'388'608);
  layout.quantized_subclass = true;
  EXPECT_EQ(gathered_bytes(layout, weight).value(), 8'388'608 + 262'144 + 4 * 1'024);
}

TEST(Qlora, QuantizesLayersButNotEmbeddingAndHead) {
  const auto graph = with_method(graph_of(small_llama()), qlora_job(BaseQuantization::nf4), {});
  ASSERT_TRUE(graph);
  for (const model::Segment& segment : graph->segments) {
    for (const model::Block& block : segment.blocks) {
      const bool layer = block.name == "model.layers";
      for (const model::Weight& weight : block.weights) {
        const bool matrix = weight.role == model::WeightRole::matrix && !weight.adapter;
        EXPECT_EQ(weight.quantized, layer && matrix) << weight.name;
        EXPECT_EQ(weight.trains, weight.adapter) << weight.name;
      }
    }
  }
}

// Over two ranks: q is split by columns (A whole, B halved), o by rows (A halved, B whole).
TEST(Adapters, AreSplitWithTheirLinears) {
  facts::Job job = lora_job({"q_proj", "o_proj"});
  job.machine.gpus = job.parallel.tensor = 2;
  job.parallel.data = 1;
  const auto programs = programs_of(graph_of(small_llama()), job, profile_of("pytorch"));
  ASSERT_TRUE(programs) << to_text(programs.error());
  std::int64_t adapters = 0;
  play(
      programs->front().program, programs->front().program.setup,
      [&](const Event& event, std::int64_t) {
        const Program& program = programs->front().program;
        const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
        if (program.names[static_cast<std::size_t>(slot.name)].find("lora_") != std::string::npos) {
          adapters += slot.bytes.value();
        }
      });
  EXPECT_EQ(adapters, 2 * 3 * (8 * 64 + 8 * 32 + 8 * 32 + 8 * 64));
}

// What is allocated in the setup is what the states say, and only adapters are stepped.
TEST(Qlora, HoldsWhatItsStatesSay) {
  const facts::Job job = qlora_job(BaseQuantization::nf4_dq);
  const Program program = program_for(graph_of(small_llama()), job, profile_of("pytorch"));
  Bytes parameters;
  play(program, program.setup, [&](const Event& event, std::int64_t) {
    const Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
    if (slot.category == facts::VramCategory::parameters) parameters += slot.bytes;
  });
  EXPECT_EQ(parameters, program.states.parameter_bytes);
  EXPECT_EQ(program.states.trainable.value(), 3 * 8 * (128 + 96));
  EXPECT_EQ(program.states.trainable_bytes.value(), 2 * program.states.trainable.value());
  EXPECT_EQ(program.states.optimizer_bytes.value(), 4 * program.states.trainable.value());
}

// Bytes of the largest slot whose name ends so.
std::int64_t allocated_as(std::string_view what, const facts::Job& job,
                          std::string_view framework) {
  const Program program = program_for(graph_of(small_llama()), job, profile_of(framework));
  std::int64_t bytes = 0;
  for (const Slot& slot : program.slots) {
    const std::string& name = program.names[static_cast<std::size_t>(slot.name)];
    if (name.size() < what.size() || name.substr(name.size() - what.size()) != what) continue;
    bytes = std::max(bytes, slot.bytes.value());
  }
  return bytes;
}

// torchao's get_original_weight holds both nibbles of each byte as int64: of the largest matrix,
// 160 x 64, half of the elements at 8 bytes. Compiled, one kernel does it; bitsandbytes has its
// own, and PEFT clones its result before it adds to that (2 x 64 tokens wide 160).
TEST(Qlora, DequantizesByOperatorsUnlessCompiled) {
  facts::Job job = qlora_job(BaseQuantization::nf4_dq);
  job.train.lora.targets = {"all-linear"};
  EXPECT_EQ(allocated_as(": nibbles", job, "torchtune"), 160 * 64 / 2 * 8);
  EXPECT_EQ(allocated_as(": nibbles", job, "pytorch"), 0);
  EXPECT_EQ(allocated_as("gate_proj: clone", job, "torchtune"), 0);
  EXPECT_EQ(allocated_as("gate_proj: clone", job, "pytorch"), kSamples * kTokens * 160 * 2);
  job.train.compile = true;
  EXPECT_EQ(allocated_as(": nibbles", job, "torchtune"), 0);
}

// 3 x 64 tokens wide 64 (small_llama: 4 heads of 16, 2 of keys and values), rank 8, nf4. A fused
// function keeps its input once, and once more behind each dropout; the adapters' own small
// products, which PEFT's modules save as well, are computed again.
std::int64_t saved_by_layer(facts::Job job) {
  const auto graph = with_method(graph_of(small_llama()), job, {});
  EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  if (!graph) return 0;
  BlockOptions options;
  options.tape.arithmetic.compute = DType::bf16;
  options.weight_dtype = DType::bf16;
  options.quantization = {job.train.base_quantization, false};
  SharedTensors shared;
  Program program;
  const model::Block& layer = graph->segments[1].blocks[0];
  for (const model::TensorInfo& info : graph->shared) {
    Tensor tensor;
    tensor.storage = std::make_shared<Storage>();
    tensor.storage->external = true;
    tensor.numel = model::elements(info.shape);
    tensor.dtype = DType::bf16;
    shared.tensors.push_back(std::move(tensor));
  }
  const BlockTrace trace = trace_block(program, *graph, layer, options, shared, false, false);
  std::int64_t sum = 0;
  for (const SavedStorage& storage : trace.saved) sum += storage.bytes.value();
  return sum;
}

TEST(FusedAdapters, KeepTheirInputAndNotTheLowProducts) {
  facts::Job job = qlora_job(BaseQuantization::nf4);
  job.train.lora.targets = {"q_proj", "k_proj", "v_proj", "o_proj"};
  const std::int64_t modules = saved_by_layer(job);
  job.train.fused_kernels = {facts::FusedKernel::lora};
  const std::int64_t fused = saved_by_layer(job);
  // Four products x A^T [128 tokens, 8] of 2 B each are not kept.
  EXPECT_EQ(modules - fused, 4 * 128 * 8 * 2);

  job.train.lora.dropout = 0.1;
  // q, k, v and o each keep their input behind the dropout, [128, 64] of 2 B.
  EXPECT_EQ(saved_by_layer(job) - fused, 4 * 128 * 64 * 2);
}

TEST(FusedAdapters, NeedAllLinearsOfAGroup) {
  facts::Job job = qlora_job(BaseQuantization::nf4);  // q and v alone
  const std::int64_t modules = saved_by_layer(job);
  job.train.fused_kernels = {facts::FusedKernel::lora};
  EXPECT_EQ(saved_by_layer(job), modules);
}

TEST(FusedAdapters, OfTheFeedForwardNetworkKeepGateAndUp) {
  facts::Job job = qlora_job(BaseQuantization::nf4);
  job.train.lora.targets = {"gate_proj", "up_proj", "down_proj"};
  const std::int64_t modules = saved_by_layer(job);
  job.train.fused_kernels = {facts::FusedKernel::lora};
  // silu(gate) and the product, [128, 160] of 2 B each, and three low products [128, 8].
  EXPECT_EQ(modules - saved_by_layer(job), 2 * 128 * 160 * 2 + 3 * 128 * 8 * 2);
}

// Every allocation of a step is freed once, whatever the method: random jobs.
TEST(Qlora, StepsLeaveNothingBehind) {
  std::mt19937 random(31);
  const auto pick = [&](int n) { return std::uniform_int_distribution<int>(0, n - 1)(random); };
  const std::vector<std::vector<std::string>> targets = {
      {"q_proj"}, {"all-linear"}, {"gate_proj", "down_proj"}, {"v_proj", "lm_head"}};
  for (int trial = 0; trial < 60; ++trial) {
    facts::Job job = lora_job(targets[static_cast<std::size_t>(pick(4))]);
    const int how = pick(6);
    if (how > 0) {
      job.train.method = Method::qlora;
      job.train.base_quantization = static_cast<BaseQuantization>(how);
    }
    job.train.lora.dropout = pick(2) == 0 ? 0.0 : 0.1;
    job.train.precision = pick(2) == 0 ? facts::Precision::bf16 : facts::Precision::bf16_mixed;
    job.train.gradient_accumulation = 1 + pick(3);
    if (pick(2) == 0) job.train.recompute.mode = facts::RecomputeMode::full;
    if (pick(3) == 0) job.train.lora.trainable = {"embed_tokens"};
    if (pick(2) == 0) {
      job.machine.gpus = job.parallel.data = 2;
      job.parallel.sharding = pick(2) == 0 ? facts::Sharding::fsdp1 : facts::Sharding::none;
    }
    if (pick(2) == 0) job.train.fused_kernels = {facts::FusedKernel::lora};
    const char* const framework = pick(2) == 0 ? "transformers" : "pytorch";
    const Program program = program_for(graph_of(small_llama()), job, profile_of(framework));
    std::set<std::pair<std::int32_t, std::int64_t>> live;
    const auto each = [&](const Event& event, std::int64_t at) {
      switch (event.kind) {
        case EventKind::allocate:
        case EventKind::adopt: EXPECT_TRUE(live.insert({event.index, at}).second); break;
        case EventKind::free:
        case EventKind::carry: EXPECT_EQ(live.erase({event.index, at}), 1U); break;
        default: break;
      }
    };
    const auto keeps = [&](std::int32_t slot, std::int64_t at) {
      return live.contains({slot, at});
    };
    play(program, program.step, each, keeps);
    EXPECT_TRUE(live.empty()) << "trial " << trial << ": " << live.size() << " left";
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace steelyard::step
