// Jobs as a person writes them: every form of every key, and what a mistake is told.
#include <gtest/gtest.h>

#include <algorithm>

#include "codec/codec.h"
#include "codec/temporary_folder.h"

namespace steelyard::codec {
namespace {

using facts::Job;
using facts::Origin;

Result<Job> job(const std::string& toml, const std::vector<std::string>& settings = {}) {
  const TemporaryFolder folder;
  return read_job(folder.write("a job.toml", toml), settings);
}

Job good(const std::string& toml, const std::vector<std::string>& settings = {}) {
  auto read = job(toml, settings);
  EXPECT_TRUE(read) << to_text(read.error());
  return read ? *read : Job{};
}

Error bad(const std::string& toml, const std::vector<std::string>& settings = {}) {
  auto read = job(toml, settings);
  EXPECT_FALSE(read) << toml;
  return read ? Error{} : read.error();
}

constexpr const char* kModel = "[model]\nconfig = 'gpt2'\n";

std::string with_model(const std::string& rest) {
  return kModel + rest;
}

TEST(Job, TheSmallestJobHasTheDefaultsOfTheContract) {
  const Job j = good(kModel);
  EXPECT_EQ(j.name, "a job") << "the stem of the file";
  EXPECT_EQ(j.framework, "pytorch");
  EXPECT_EQ(std::get<std::string>(j.model.config), "gpt2");
  EXPECT_EQ(j.train.precision, facts::Precision::bf16_mixed);
  EXPECT_EQ(j.train.micro_batch, std::nullopt);
  EXPECT_EQ(j.train.fp8.has_value(), false);
  EXPECT_EQ(j.parallel.data, std::nullopt);
  EXPECT_EQ(j.machine.nodes, 1);
  EXPECT_EQ(j.origins.size(), 1U);
}

// Every key of the contract, each with a value that is not its default.
constexpr const char* kEveryKey = R"(
name = "llama-3.1-8b, full fine-tune"
framework = "torchtitan"
[model]
config = "llama-3.1-8b"
set = { num_hidden_layers = 16 }
companions = [{ config = "clip-vit-l-14", held = "load", trainable = true }, { config = "vae" }]
[train]
method = "qlora"
lora = { rank = 8, targets = ["q_proj", "v_proj"], dropout = 0.1, trainable = ["embed_tokens"] }
base_quantization = "nf4-dq"
unquantized = "bf16"
micro_batch = 2
gradient_accumulation = 4
global_batch = 64
sequence_length = 8192
decoder_sequence_length = 128
sequence_length_mean = 512.5
tokens_per_batch = 16384
packed = true
image_size = [224, 256]
frames = 16
precision = "fp8-mixed"
gradient_clipping = false
recompute = "selective-op"
attention = "math"
loss = "chunked"
compile = true
fused_kernels = ["rmsnorm", "rope", "swiglu", "cross_entropy", "lora", "moe"]
memory_format = "channels_last"
fp8 = { recipe = "rowwise", all_gather = true }
[train.optimizer]
name = "lamb"
fused = true
foreach = false
state_precision = "bf16"
master_weights = true
in_backward = true
[parallel]
data = 8
tensor = 2
pipeline = 3
context = 4
expert = 5
expert_tensor = 6
sequence_parallel = true
schedule = "zero-bubble"
virtual_stages = 7
sharding = "shard-grad-op"
shard_group = 4
reshard_after_forward = false
buckets = { all_gather = 2e8, reduce = 1e8 }
reduce_precision = "bf16"
stage_layers = [10, 12, 10]
async_tensor = true
context_method = "ring"
embeddings = "row-wise"
[offload]
parameters = "nvme"
optimizer = "cpu"
activations = "cpu"
gradients = "cpu"
embeddings = "uvm-caching"
embedding_hits = 0.9
pin_memory = false
pipelined = true
[data]
kind = "video"
samples = 1281167
bytes_per_sample = 110_000
sizes_from = "some/folder"
layout = "tfrecord"
location = "network"
shuffle = "shard"
workers = 8
prefetch = 4
pin_memory = false
decode = "gpu"
cache = "ram-encoded"
cache_shared = true
shuffle_buffer = 5000
decode_seconds = 0.004
[checkpoint]
every_steps = 500
method = "sharded-async"
load = "rank0"
[machine]
name = "dgx-h100"
nodes = 2
gpus = 8
fabric_gpus = 16
gpu = "h100-sxm-80gb"
ram_gib = 1024
vram_gib = 79.5
cores = 96
storage_gb_per_s = 6.5
storage_write_gb_per_s = 3.5
storage_total_gb_per_s = 40
network_gbps_per_gpu = 400
[import]
megatron = "model_config.yaml"
deepspeed = { zero_optimization = { stage = 3 } }
accelerate = "fsdp.yaml"
torchtitan = "llama3_8b.toml"
)";

TEST(Job, EveryKeyOfTheTopAndOfModelIsRead) {
  const Job j = good(kEveryKey);
  EXPECT_EQ(j.name, "llama-3.1-8b, full fine-tune");
  EXPECT_EQ(j.framework, "torchtitan");
  EXPECT_EQ(*j.model.set.find("num_hidden_layers"), facts::Value(16));
  ASSERT_EQ(j.model.companions.size(), 2U);
  EXPECT_EQ(j.model.companions[0].held, facts::CompanionHeld::load);
  EXPECT_TRUE(j.model.companions[0].trainable);
  EXPECT_EQ(j.model.companions[1].held, facts::CompanionHeld::always);
}

TEST(Job, EveryKeyOfTrainIsRead) {
  const Job j = good(kEveryKey);
  EXPECT_EQ(j.train.method, facts::Method::qlora);
  EXPECT_EQ(j.train.lora.rank, 8);
  EXPECT_EQ(j.train.lora.targets, (std::vector<std::string>{"q_proj", "v_proj"}));
  EXPECT_EQ(j.train.lora.dropout, 0.1);
  EXPECT_EQ(j.train.lora.trainable, std::vector<std::string>{"embed_tokens"});
  EXPECT_EQ(j.train.base_quantization, facts::BaseQuantization::nf4_dq);
  EXPECT_EQ(j.train.unquantized, facts::ShortPrecision::bf16);
  EXPECT_EQ(j.train.micro_batch, 2);
  EXPECT_EQ(j.train.gradient_accumulation, 4);
  EXPECT_EQ(j.train.global_batch, 64);
  EXPECT_EQ(j.train.sequence_length, 8192);
  EXPECT_EQ(j.train.decoder_sequence_length, 128);
  EXPECT_EQ(j.train.sequence_length_mean, 512.5);
  EXPECT_EQ(j.train.tokens_per_batch, 16384);
  EXPECT_TRUE(j.train.packed);
  EXPECT_EQ(j.train.image_size, (std::vector<std::int64_t>{224, 256}));
  EXPECT_EQ(j.train.frames, 16);
  EXPECT_EQ(j.train.precision, facts::Precision::fp8_mixed);
  EXPECT_EQ(j.train.optimizer.name, facts::OptimizerName::lamb);
  EXPECT_EQ(j.train.optimizer.fused, true);
  EXPECT_EQ(j.train.optimizer.foreach, false);
  EXPECT_EQ(j.train.optimizer.state_precision, facts::ShortPrecision::bf16);
  EXPECT_EQ(j.train.optimizer.master_weights, true);
  EXPECT_TRUE(j.train.optimizer.in_backward);
}

TEST(Job, EveryTechniqueOfTrainIsRead) {
  const Job j = good(kEveryKey);
  EXPECT_FALSE(j.train.gradient_clipping);
  EXPECT_EQ(j.train.recompute.mode, facts::RecomputeMode::selective_op);
  EXPECT_EQ(j.train.attention, facts::Attention::math);
  EXPECT_EQ(j.train.loss, facts::Loss::chunked);
  EXPECT_TRUE(j.train.compile);
  EXPECT_EQ(j.train.fused_kernels.size(), 6U);
  EXPECT_EQ(j.train.memory_format, facts::MemoryFormat::channels_last);
  ASSERT_TRUE(j.train.fp8);
  EXPECT_EQ(j.train.fp8->recipe, facts::Fp8Recipe::rowwise);
  EXPECT_TRUE(j.train.fp8->all_gather);
}

TEST(Job, EveryKeyOfParallelAndOffloadIsRead) {
  const Job j = good(kEveryKey);
  EXPECT_EQ(j.parallel.data, 8);
  EXPECT_EQ(j.parallel.tensor, 2);
  EXPECT_EQ(j.parallel.pipeline, 3);
  EXPECT_EQ(j.parallel.context, 4);
  EXPECT_EQ(j.parallel.expert, 5);
  EXPECT_EQ(j.parallel.expert_tensor, 6);
  EXPECT_TRUE(j.parallel.sequence_parallel);
  EXPECT_EQ(j.parallel.schedule, facts::Schedule::zero_bubble);
  EXPECT_EQ(j.parallel.virtual_stages, 7);
  EXPECT_EQ(j.parallel.sharding, facts::Sharding::shard_grad_op);
  EXPECT_EQ(j.parallel.shard_group, 4);
  EXPECT_FALSE(j.parallel.reshard_after_forward);
  EXPECT_EQ(j.parallel.buckets.all_gather, 2e8);
  EXPECT_EQ(j.parallel.buckets.reduce, 1e8);
  EXPECT_EQ(j.parallel.reduce_precision, facts::ShortPrecision::bf16);
  EXPECT_EQ(j.parallel.stage_layers, (std::vector<std::int64_t>{10, 12, 10}));
  EXPECT_TRUE(j.parallel.async_tensor);
  EXPECT_EQ(j.parallel.context_method, facts::ContextMethod::ring);
  EXPECT_EQ(j.parallel.embeddings, facts::EmbeddingPlacement::row_wise);

  EXPECT_EQ(j.offload.parameters, facts::OffloadTo::nvme);
  EXPECT_EQ(j.offload.optimizer, facts::OffloadTo::cpu);
  EXPECT_EQ(j.offload.activations, facts::OffloadTo::cpu);
  EXPECT_EQ(j.offload.gradients, facts::OffloadTo::cpu);
  EXPECT_EQ(j.offload.embeddings, facts::EmbeddingOffload::uvm_caching);
  EXPECT_EQ(j.offload.embedding_hits, 0.9);
  EXPECT_FALSE(j.offload.pin_memory);
  EXPECT_TRUE(j.offload.pipelined);
}

TEST(Job, EveryKeyOfDataCheckpointMachineAndImportIsRead) {
  const Job j = good(kEveryKey);
  EXPECT_EQ(j.data.kind, facts::DataKind::video);
  EXPECT_EQ(j.data.samples, 1281167);
  EXPECT_EQ(j.data.bytes_per_sample, 110000.0);
  EXPECT_EQ(j.data.sizes_from, "some/folder");
  EXPECT_EQ(j.data.layout, facts::DataLayout::tfrecord);
  EXPECT_EQ(j.data.location, "network");
  EXPECT_EQ(j.data.shuffle, facts::Shuffle::shard);
  EXPECT_EQ(j.data.workers, 8);
  EXPECT_EQ(j.data.prefetch, 4);
  EXPECT_FALSE(j.data.pin_memory);
  EXPECT_EQ(j.data.decode, facts::DecodeOn::gpu);
  EXPECT_EQ(j.data.cache, facts::DataCache::ram_encoded);
  EXPECT_TRUE(j.data.cache_shared);
  EXPECT_EQ(j.data.shuffle_buffer, 5000);
  EXPECT_EQ(j.data.decode_seconds, 0.004);

  EXPECT_EQ(j.checkpoint.every_steps, 500);
  EXPECT_EQ(j.checkpoint.method, facts::CheckpointMethod::sharded_async);
  EXPECT_EQ(j.checkpoint.load, facts::CheckpointLoad::rank0);

  EXPECT_EQ(j.machine.name, "dgx-h100");
  EXPECT_EQ(j.machine.nodes, 2);
  EXPECT_EQ(j.machine.gpus, 8);
  EXPECT_EQ(j.machine.fabric_gpus, 16);
  EXPECT_EQ(j.machine.gpu, "h100-sxm-80gb");
  EXPECT_EQ(j.machine.ram_gib, 1024.0);
  EXPECT_EQ(j.machine.vram_gib, 79.5);
  EXPECT_EQ(j.machine.cores, 96);
  EXPECT_EQ(j.machine.storage_gb_per_s, 6.5);
  EXPECT_EQ(j.machine.storage_write_gb_per_s, 3.5);
  EXPECT_EQ(j.machine.storage_total_gb_per_s, 40.0);
  EXPECT_EQ(j.machine.network_gbps_per_gpu, 400.0);

  EXPECT_EQ(*j.import.megatron, facts::Value("model_config.yaml"));
  EXPECT_NE(j.import.deepspeed->find("zero_optimization"), nullptr);
  EXPECT_EQ(*j.import.accelerate, facts::Value("fsdp.yaml"));
  EXPECT_EQ(*j.import.torchtitan, facts::Value("llama3_8b.toml"));
}

TEST(Job, OptimizerIsANameOrATable) {
  const Job name = good(with_model("[train]\noptimizer = 'sgd-momentum'\n"));
  EXPECT_EQ(name.train.optimizer.name, facts::OptimizerName::sgd_momentum);
  EXPECT_EQ(name.origins.at("train.optimizer.name").line, 4);
  EXPECT_FALSE(name.origins.contains("train.optimizer.fused"));
  const Job table = good(with_model("[train]\noptimizer = { fused = true }\n"));
  EXPECT_EQ(table.train.optimizer.name, facts::OptimizerName::adamw);
  EXPECT_EQ(table.train.optimizer.fused, true);
}

TEST(Job, RecomputeIsANameOrOneOfTwoTables) {
  using facts::RecomputeMode;
  const auto recompute = [](const std::string& value) {
    return good(with_model("[train]\nrecompute = " + value)).train.recompute;
  };
  EXPECT_EQ(recompute("'none'").mode, RecomputeMode::none);
  EXPECT_EQ(recompute("'selective'").mode, RecomputeMode::selective);
  EXPECT_EQ(recompute("{ every = 2 }").mode, RecomputeMode::full);
  EXPECT_EQ(recompute("{ every = 2 }").every, 2);
  const auto block = recompute("{ layers = 8, method = 'block' }");
  EXPECT_EQ(block.layers, 8);
  EXPECT_EQ(block.method, facts::RecomputeMethod::block);
  EXPECT_EQ(recompute("{ layers = 8 }").method, std::nullopt);

  for (const char* value : {"{}", "{ every = 2, layers = 3 }", "{ method = 'block' }",
                            "{ every = 2, method = 'block' }"}) {
    EXPECT_EQ(bad(with_model(std::string("[train]\nrecompute = ") + value)).code,
              ErrorCode::impossible_combination)
        << value;
  }
  const Error inside = bad(with_model("[train]\nrecompute = { evry = 2 }"));
  EXPECT_EQ(inside.subject, "train.recompute.evry");
  EXPECT_EQ(inside.hint, "did you mean \"every\"?");
  EXPECT_EQ(bad(with_model("[train]\nrecompute = { every = 0 }")).subject, "train.recompute.every");
}

TEST(Job, TheModelMayBeAnObjectOrComeFromAnImport) {
  const Job object = good("[model]\nconfig = { model_type = 'gpt2', n_layer = 2 }\n");
  EXPECT_EQ(*std::get<facts::Value>(object.model.config).find("n_layer"), facts::Value(2));
  const Job imported = good("[import.megatron]\nnum-layers = 2\n");
  EXPECT_EQ(*imported.import.megatron->find("num-layers"), facts::Value(2));
  const Error neither = bad("name = 'x'\n");
  EXPECT_EQ(neither.code, ErrorCode::missing_value);
  EXPECT_EQ(neither.subject, "model.config");
}

TEST(Job, BothBatchKeysMayBeGiven) {
  const Job j = good(with_model("[train]\ngradient_accumulation = 2\nglobal_batch = 16\n"));
  EXPECT_EQ(j.train.gradient_accumulation, 2);
  EXPECT_EQ(j.train.global_batch, 16);
}

TEST(Job, AMillionMayBeWrittenAsARealNumber) {
  EXPECT_EQ(good(with_model("[data]\nsamples = 1e6\n")).data.samples, 1'000'000);
  EXPECT_EQ(bad(with_model("[data]\nsamples = 1.5\n")).subject, "data.samples");
}

TEST(Job, OriginsSayWhichLineGaveAKey) {
  const Job j =
      good("[model]\nconfig = 'gpt2'\n\n[train]\nmicro_batch = 4\n", {"train.sequence_length=128"});
  EXPECT_EQ(j.origins.at("model.config").origin, Origin::job);
  EXPECT_EQ(j.origins.at("model.config").line, 2);
  EXPECT_EQ(j.origins.at("train.micro_batch").line, 5);
  EXPECT_EQ(j.origins.at("train.sequence_length").origin, Origin::job);
  EXPECT_EQ(j.origins.at("train.sequence_length").line, std::nullopt) << "--set has no line";
  EXPECT_FALSE(j.origins.contains("train.packed"));
}

TEST(Job, AMistakeIsToldWithFileLineKeyAndWhatIsAccepted) {
  struct {
    const char* text;
    int line;
    const char* subject;
    const char* part_of_message;
  } const cases[] = {
      {"[train]\nmicro_batch = 0\n", 4, "train.micro_batch", "from 1 to 1,000,000"},
      {"[train]\nmicro_batch = -3\n", 4, "train.micro_batch", "found -3"},
      {"[train]\nmicro_batch = 99999999\n", 4, "train.micro_batch", "from 1 to 1,000,000"},
      {"[train]\nmicro_batch = \"4\"\n", 4, "train.micro_batch", "a whole number"},
      {"[train]\nmicro_batch = 1.5\n", 4, "train.micro_batch", "a whole number"},
      {"[train]\nmicro_batch = nan\n", 4, "train.micro_batch", "a whole number"},
      {"[train]\nmicro_batch = inf\n", 4, "train.micro_batch", "a whole number"},
      {"[train]\npacked = 1\n", 4, "train.packed", "true or false"},
      {"[train]\nprecision = \"bf16mixed\"\n", 4, "train.precision", "did you mean \"bf16-mixed\""},
      {"[train]\nprecision = 16\n", 4, "train.precision", "accepted: fp32, tf32"},
      {"[train]\n\nmicrobatch = 4\n", 5, "train.microbatch", "did you mean train.micro_batch?"},
      {"[train]\nsharding = \"fsdp\"\n", 4, "train.sharding", "did you mean parallel.sharding?"},
      {"[trian]\nmicro_batch = 4\n", 3, "trian", "did you mean train?"},
      {"[train]\nimage_size = [224]\n", 4, "train.image_size", "a list of 2"},
      {"[train]\nimage_size = [224, 0]\n", 4, "train.image_size[1]", "from 1 to"},
      {"[train]\nimage_size = 224\n", 4, "train.image_size", "a list"},
      {"[train]\nfused_kernels = [\"rope\", \"rop\"]\n", 4, "train.fused_kernels[1]", "\"rope\"?"},
      {"[train]\noptimizer = 3\n", 4, "train.optimizer", "a name or a table"},
      {"[train]\noptimizer = \"adamx\"\n", 4, "train.optimizer.name", "adamw"},
      {"[train]\nlora = { rnk = 4 }\n", 4, "train.lora.rnk", "did you mean train.lora.rank?"},
      {"[train.lora]\ndropout = 2\n", 4, "train.lora.dropout", "from 0 to 1"},
      {"[parallel]\nbuckets = { reduce = nan }\n", 4, "parallel.buckets.reduce", "a number"},
      {"[offload]\nactivations = \"nvme\"\n", 4, "offload.activations", "none or cpu"},
      {"[machine]\nram_gib = 0\n", 4, "machine.ram_gib", "from 0.001 to"},
      {"[machine]\nname = 5\n", 4, "machine.name", "accepted: text"},
      {"[import]\nmegatron = 5\n", 4, "import.megatron", "a path (text) or a table"},
      {"[[data]]\nkind = \"jpeg\"\n", 3, "data", "accepted: a table"},
  };
  for (const auto& c : cases) {
    const Error error = bad(with_model(c.text));
    EXPECT_EQ(error.subject, c.subject) << to_text(error);
    EXPECT_EQ(error.line, c.line) << to_text(error);
    EXPECT_NE(error.file.find("a job.toml"), std::string::npos);
    EXPECT_NE(to_text(error).find(c.part_of_message), std::string::npos) << to_text(error);
  }
}

TEST(Job, TheFirstMistakeOfTheFileIsTold) {
  const Error error = bad(with_model("[train]\nframes = 0\nmicro_batch = 0\nnonsense = 1\n"));
  EXPECT_EQ(error.subject, "train.frames");
}

TEST(Job, AMistakeInASettingIsToldAsSuch) {
  const Error range = bad(kModel, {"train.micro_batch=0"});
  EXPECT_EQ(range.file, "--set");
  EXPECT_EQ(range.line, std::nullopt);
  EXPECT_EQ(bad(kModel, {"train.micro_batchs=4"}).hint, "did you mean train.micro_batch?");
  EXPECT_EQ(bad(kModel, {"micro_batch=4"}).hint, "did you mean train.micro_batch?");
  EXPECT_EQ(bad(kModel, {"train.recompute.every=-1"}).file, "--set");
}

TEST(Job, JsonHoldsTheSameKeysAndNullIsNoValue) {
  const auto value =
      parse(R"({"model": {"config": "gpt2"}, "train": {"micro_batch": 3}})", Format::json, "x");
  const auto j = job_from(*value, "case-3.1-8b");
  ASSERT_TRUE(j) << to_text(j.error());
  EXPECT_EQ(j->train.micro_batch, 3);
  EXPECT_EQ(j->name, "case-3.1-8b") << "not a file name: nothing is cut off";
  const auto null =
      parse(R"({"model": {"config": "gpt2"}, "train": {"micro_batch": null}})", Format::json, "x");
  const auto refused = job_from(*null, "case-2");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().subject, "train.micro_batch");
  EXPECT_EQ(refused.error().found, "null");
  EXPECT_FALSE(job_from(facts::Value(5), "five"));
}

TEST(JobKeys, AreDottedUniqueAndComplete) {
  const auto keys = job_keys();
  for (const char* key :
       {"name", "framework", "model.config", "model.set", "model.companions", "train.optimizer",
        "train.optimizer.fused", "train.lora.rank", "train.fp8.recipe", "train.recompute",
        "parallel.buckets.reduce", "offload.pin_memory", "data.decode_seconds", "checkpoint.load",
        "machine.storage_gb_per_s", "import.torchtitan"}) {
    EXPECT_EQ(std::count(keys.begin(), keys.end(), key), 1) << key;
  }
}

}  // namespace
}  // namespace steelyard::codec
