// What is trained, how, on what data and where: the job file (job-format.md) as plain values.
//
// Members without std::optional hold the contract's static default. Members in std::optional have a
// default that depends on other keys, on the model or on the machine: plan/resolve.h fills them,
// and every room behind it may rely on the ones marked "resolved".
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/quantity.h"
#include "facts/allocator.h"
#include "facts/enums.h"
#include "facts/megatron.h"
#include "facts/origin.h"
#include "facts/value.h"

namespace steelyard::facts {

struct Companion {
  std::string config;  // catalogue id or path
  CompanionHeld held = CompanionHeld::always;
  bool trainable = false;
  std::optional<ShortPrecision> precision = {};  // of its weights; none: that of the products
};

// A model beside the policy: the tables of [[model]] with another role.
struct RoleModel {
  Role role = Role::reference;
  std::variant<std::monostate, std::string, Value> config;  // none: as the policy's
  Value set;
  std::optional<bool> trainable;  // resolved: critics train
  // Where its weights lie while it is not at work; `none`: on the GPU.
  OffloadTo offload = OffloadTo::none;
  // Resolved: the policy's own base with its adapters off, which holds nothing of its own.
  bool shared = false;
};

struct ModelKeys {
  // Absent only when an import brings the model. Text: catalogue id or path; object: the
  // configuration itself.
  std::variant<std::monostate, std::string, Value> config;
  Value set;  // overrides of the configuration's own keys; null or an object
  std::vector<Companion> companions;
  Value pipeline;  // of a diffusers folder: how its parts are held, { text_encoder = "cpu" }
  std::vector<RoleModel> roles;
};

struct LoraKeys {
  std::int64_t rank = 16;
  std::vector<std::string> targets;  // empty: q_proj and v_proj, PEFT's default for llama
  double dropout = 0.0;
  std::vector<std::string> trainable;  // further modules trained in full
};

struct OptimizerKeys {
  OptimizerName name = OptimizerName::adamw;
  std::optional<bool> fused;    // resolved: false
  std::optional<bool> foreach;  // resolved: true where PyTorch would, false when fused
  std::optional<ShortPrecision> state_precision;  // resolved: of the (master) parameters
  std::optional<bool> master_weights;             // resolved: fp32 copy of short parameters
  bool in_backward = false;
};

struct RecomputeKeys {
  RecomputeMode mode = RecomputeMode::none;  // full also for the table forms
  std::optional<std::int64_t> every;         // { every = 2 }: each n-th layer
  std::optional<std::int64_t> layers;        // { layers = 8, method = "block" }
  std::optional<RecomputeMethod> method;
};

struct Fp8Keys {
  Fp8Recipe recipe = Fp8Recipe::delayed;
  bool all_gather = false;
};

// How the policy's samples are made and used (ppo, grpo).
struct RolloutKeys {
  std::optional<std::int64_t> prompt_length, response_length;  // tokens; resolved
  std::optional<std::int64_t> group_size;                      // answers to one prompt; resolved
  std::optional<std::int64_t> samples;           // of one GPU between two generations; resolved
  std::optional<std::int64_t> generation_batch;  // samples decoded side by side; resolved: all
  std::optional<std::int64_t> score_batch;       // samples scored at once; resolved: micro_batch
  std::optional<std::int64_t> epochs;            // times that each sample is learned from; resolved
  RolloutEngine engine = RolloutEngine::model;
  double memory_fraction = 0.3;  // colocated: of the card, for its weights and cache
  bool sleeps = false;           // colocated: gives that back while the policy trains
};

struct TrainKeys {
  Method method = Method::full;
  Objective objective = Objective::sft;
  std::optional<ReferenceUse> reference;  // resolved
  RolloutKeys rollout;
  LoraKeys lora;
  // Parts of names of weights: those that train, the others being frozen, and those that are.
  std::vector<std::string> trainable, frozen;
  BaseQuantization base_quantization = BaseQuantization::none;
  std::optional<ShortPrecision> unquantized;          // qlora: the frozen rest
  std::optional<std::int64_t> micro_batch;            // samples; resolved
  std::optional<std::int64_t> gradient_accumulation;  // micro-batches per step; resolved
  std::optional<std::int64_t> global_batch;           // samples per step; resolved
  std::optional<std::int64_t> sequence_length;        // tokens; resolved for text models
  std::optional<std::int64_t> decoder_sequence_length;
  std::optional<double> sequence_length_mean;
  std::optional<std::int64_t> tokens_per_batch;
  bool packed = false;
  std::vector<std::int64_t> image_size;  // [height, width]
  std::optional<std::int64_t> images;    // per sample, beside its text; resolved for such models
  std::optional<std::int64_t> frames;
  std::optional<double> audio_seconds;  // of a padded sample; resolved for speech models
  Precision precision = Precision::bf16_mixed;
  OptimizerKeys optimizer;
  bool gradient_clipping = true;
  RecomputeKeys recompute;
  std::optional<bool> use_reentrant;  // of the checkpoints; none: as the framework does
  Attention attention = Attention::flash;
  Loss loss = Loss::full;
  std::optional<bool> upcast_logits;  // none: as the framework does
  std::optional<bool> loss_in_model;  // the model's forward() computes it, not the loop; likewise
  std::optional<bool> keep_logits;    // the loop holds them while backward runs; likewise
  bool use_cache = false;             // the model hands back keys and values beside its logits
  bool compile = false;
  std::vector<FusedKernel> fused_kernels;
  MemoryFormat memory_format = MemoryFormat::contiguous;
  std::optional<AllocatorConf> allocator;  // none: PyTorch's defaults
  std::optional<Fp8Keys> fp8;
};

struct BucketKeys {
  double all_gather = 5e8;  // elements, as DeepSpeed counts them
  double reduce = 5e8;      // elements
  bool overlap = false;     // DeepSpeed's overlap_comm below stage 3: one is filled, one reduced
};

struct ParallelKeys {
  std::optional<std::int64_t> data;  // resolved: GPUs / (tensor * pipeline * context)
  std::int64_t tensor = 1;
  std::int64_t pipeline = 1;
  std::int64_t context = 1;
  std::optional<ContextMethod> context_method;  // none: the framework's own
  std::int64_t expert = 1;
  std::int64_t expert_tensor = 1;
  double expert_imbalance = 1.0;  // tokens that the fullest rank's experts get, over an even share
  double expert_capacity = 1.0;   // rows of each expert, over an even share: padded up to that
  bool sequence_parallel = false;
  Schedule schedule = Schedule::one_f_one_b;
  std::int64_t virtual_stages = 1;
  Sharding sharding = Sharding::none;
  std::optional<std::int64_t> shard_group;  // ranks; resolved: all data-parallel ranks
  bool reshard_after_forward = true;
  bool memory_efficient_linear = true;  // DeepSpeed's, of ZeRO-3; false: PyTorch's own
  BucketKeys buckets;
  std::optional<ShortPrecision> reduce_precision;  // resolved: fp32 when mixed, else the gradients'
  std::vector<std::int64_t> stage_layers;
  bool async_tensor = false;
  EmbeddingPlacement embeddings = EmbeddingPlacement::replicated;
};

struct OffloadKeys {
  OffloadTo parameters = OffloadTo::none;
  OffloadTo optimizer = OffloadTo::none;
  OffloadTo activations = OffloadTo::none;
  OffloadTo gradients = OffloadTo::none;
  EmbeddingOffload embeddings = EmbeddingOffload::none;
  // Of the rows that a step looks up, the share that the GPU's cache holds (uvm-caching).
  std::optional<double> embedding_hits;
  bool pin_memory = true;
  bool pipelined = false;                    // NVMe is read and written while the host steps
  std::optional<std::int64_t> host_threads;  // of a rank, in the step that the host takes
};

struct DataKeys {
  std::optional<DataKind> kind;            // resolved: tokens for text models
  std::optional<std::int64_t> samples;     // in the dataset
  std::optional<double> bytes_per_sample;  // mean on storage; resolved for tokens
  std::optional<double> bytes_deviation;   // standard deviation of the same
  std::vector<std::int64_t> stored_size;   // rows, columns of a stored picture, mean
  std::optional<std::string> sizes_from;   // a real folder to measure
  std::optional<std::string> loader;       // catalog/loaders; absent: the framework's own
  std::optional<DataLayout> layout;        // resolved: memmap for tokens, files otherwise
  std::optional<std::string> location;     // a storage name of the machine, or "network"; resolved
  Shuffle shuffle = Shuffle::sample;
  std::optional<std::int64_t> workers;  // loader processes per GPU; resolved
  WorkerStart worker_start = WorkerStart::fork;
  std::int64_t prefetch = 2;  // batches ahead per worker
  bool pin_memory = true;
  bool cache_shared = false;  // a cache in memory is one for all processes of a node
  DecodeOn decode = DecodeOn::cpu;
  DataCache cache = DataCache::page;
  std::optional<std::int64_t> shuffle_buffer;  // samples in each that draws from one; resolved
  std::optional<double> decode_seconds;        // CPU seconds per sample on one core; resolved
};

struct CheckpointKeys {
  std::optional<std::int64_t>
      every_steps;  // absent: no checkpoint while training... resolved: 1000
  CheckpointMethod method = CheckpointMethod::sync;
  CheckpointLoad load = CheckpointLoad::mmap;
};

struct MachineKeys {
  std::optional<std::string> name;  // catalogue id or a machine file
  std::int64_t nodes = 1;
  std::optional<std::int64_t> gpus;  // used per node; resolved: all of the machine's
  // GPUs joined by direct links across nodes; resolved: the machine's, at least those of a node.
  std::optional<std::int64_t> fabric_gpus;
  std::optional<std::string> gpu;  // instead of name: a bare GPU
  std::optional<double> ram_gib;   // host memory per node
  std::optional<double> vram_gib;  // overrides the card's capacity
  std::optional<std::int64_t> cores;
  std::optional<double> host_tflops;  // of products on all cores of a node
  std::optional<double> storage_gb_per_s, storage_write_gb_per_s;
  std::optional<double> storage_total_gb_per_s;    // read by all nodes together
  std::optional<double> gpu_link_gb_per_s;         // from GPU to GPU of a node, one way; 0: none
  std::optional<double> network_gbps_per_gpu;      // gigabit per second and GPU between nodes
  bool numa_binding = false;                       // each rank and its loaders stay near its GPU
  NumaMemory numa_memory = NumaMemory::preferred;  // of bound ranks
};

struct ImportKeys {
  std::optional<Value> megatron, deepspeed, accelerate, torchtitan;  // a path (text) or an object
};

// Where one key's value came from; `line` is in the job file.
struct KeyOrigin {
  Origin origin = Origin::fallback;
  std::optional<int> line;
};

struct Job {
  std::string name;
  // Whose habits decide what is kept and when: a profile of the catalogue, frameworks/NAME.toml.
  std::string framework = "pytorch";
  Value versions;  // of the software, by package; resolved: those of the framework's profile too
  ModelKeys model;
  TrainKeys train;
  ParallelKeys parallel;
  OffloadKeys offload;
  DataKeys data;
  CheckpointKeys checkpoint;
  MachineKeys machine;
  ImportKeys import;
  std::optional<MegatronKeys> megatron;  // what only an import of Megatron-LM's arguments says

  // By dotted key ("train.micro_batch"); a key that is not in it has its static default.
  std::map<std::string, KeyOrigin, std::less<>> origins;
};

}  // namespace steelyard::facts
