// Every key of the job file, once: name, member, what is accepted, what it means. The same table
// drives the reader, `explain`, the plan's "job", the JSON Schema, completion and did-you-mean.
//
// A visitor V offers key(name, member, rule), table(name, member, fields, rule[, shorthand]),
// optional_table(...) and list(...), see reader.h.
#pragma once

#include "codec/rule.h"

namespace steelyard::codec {

// The first two of OffloadTo's names: the contract has no nvme for these.
constexpr Rule none_or_cpu(const char* text) {
  return {.about = text, .first_names = 2};
}

inline constexpr auto companion_fields = [](auto& v, auto& c) {
  v.key("config", c.config, required(about("catalogue id or path")));
  v.key("held", c.held,
        about("always on the card, there until what it computes once is stored, or on the CPU"));
  v.key("trainable", c.trainable, about("trained together with the model"));
  v.key("precision", c.precision, about("type of its weights; default: that of the products"));
};

inline constexpr auto role_fields = [](auto& v, auto& r) {
  v.key("role", r.role, required(about("reference, reward or critic; the policy is the model")));
  v.key("config", r.config,
        about("a catalogue id, a path or a configuration; default: the model's"));
  v.key("set", r.set, about("overrides of the configuration's own keys"));
  v.key("trainable", r.trainable, about("default: critics train, the others do not"));
  v.key("offload", r.offload, none_or_cpu("where its weights wait while others work"));
};

inline constexpr auto model_fields = [](auto& v, auto& m) {
  v.key("config", m.config,
        about("a catalogue id, a path to a model's configuration, or the configuration itself"));
  v.key("set", m.set, about("overrides of the configuration's own keys"));
  v.list("companions", m.companions, companion_fields,
         about("models beside the trained one: text encoders, VAEs"));
  v.key("pipeline", m.pipeline,
        about("how parts of a diffusers folder are held: { text_encoder = \"cpu\" }"));
  v.list("roles", m.roles, role_fields, about("the other tables of [[model]], by their role"));
};

inline constexpr auto lora_fields = [](auto& v, auto& l) {
  v.key("rank", l.rank, between(1, kMostLoraRank, "rank of the adapters"));
  v.key("targets", l.targets,
        Rule{.about = "modules that get an adapter: names, patterns with *, expressions as PEFT's",
             .text_allowed = true});
  v.key("dropout", l.dropout, between(0, 1, "probability before each adapter"));
  v.key("trainable", l.trainable, about("further modules trained in full"));
};

inline constexpr auto optimizer_fields = [](auto& v, auto& o) {
  v.key("name", o.name, about("the optimizer"));
  v.key("fused", o.fused, about("one kernel for all parameters"));
  v.key("foreach", o.foreach, about("lists of tensors at once, with temporaries"));
  v.key("state_precision", o.state_precision, about("type of the optimizer's states"));
  v.key("master_weights", o.master_weights, about("an fp32 copy of short parameters"));
  v.key("in_backward", o.in_backward, about("each gradient is applied and freed in backward"));
};

inline constexpr auto fp8_fields = [](auto& v, auto& f) {
  v.key("recipe", f.recipe, about("how scales are chosen"));
  v.key("all_gather", f.all_gather, about("parameters are gathered in fp8"));
};

inline constexpr auto train_size_fields = [](auto& v, auto& t) {
  v.key("micro_batch", t.micro_batch,
        between(1, kMostMicroBatch, "samples per replica and forward pass"));
  v.key("gradient_accumulation", t.gradient_accumulation,
        between(1, kMostSamplesPerStep, "micro-batches per optimizer step"));
  v.key("global_batch", t.global_batch,
        between(1, kMostSamplesPerStep, "samples per optimizer step, all replicas"));
  v.key("sequence_length", t.sequence_length, between(1, kMostSequence, "tokens per sample"));
  v.key("decoder_sequence_length", t.decoder_sequence_length,
        between(1, kMostSequence, "tokens per sample of the decoder"));
  v.key("sequence_length_mean", t.sequence_length_mean,
        between(1, kMostSequence, "mean tokens per sample when lengths vary"));
  v.key("tokens_per_batch", t.tokens_per_batch,
        between(1, kMostTokensPerBatch, "tokens per replica and pass, instead of micro_batch"));
  v.key("packed", t.packed, about("several samples per row"));
  v.key("image_size", t.image_size,
        items(2, 2, between(1, kMostPixels, "[height, width], pixels")));
  v.key("images", t.images, between(1, kMostFrames, "pictures per sample, beside its text"));
  v.key("frames", t.frames, between(1, kMostFrames, "frames per video"));
  v.key("audio_seconds", t.audio_seconds,
        between(kLeastAudioSeconds, kMostAudioSeconds, "seconds of sound per padded sample"));
};

inline constexpr auto rollout_fields = [](auto& v, auto& r) {
  v.key("prompt_length", r.prompt_length, between(1, kMostSequence, "tokens"));
  v.key("response_length", r.response_length, between(1, kMostSequence, "tokens"));
  v.key("group_size", r.group_size, between(1, kMostMicroBatch, "answers to one prompt"));
  v.key("samples", r.samples,
        between(1, kMostSamplesPerStep, "of one GPU between two generations"));
  v.key("generation_batch", r.generation_batch,
        between(1, kMostMicroBatch, "samples decoded side by side"));
  v.key("score_batch", r.score_batch, between(1, kMostMicroBatch, "samples scored at once"));
  v.key("epochs", r.epochs, between(1, kMostSteps, "times each sample is learned from"));
  v.key("engine", r.engine, about("who samples: the model, an engine on the same or other GPUs"));
  v.key("memory_fraction", r.memory_fraction, between(0, 1, "colocated: of the card's memory"));
  v.key("sleeps", r.sleeps, about("colocated: gives its memory back while the policy trains"));
};

inline constexpr auto train_fields = [](auto& v, auto& t) {
  v.key("method", t.method, about("what is trained"));
  v.key("objective", t.objective, about("what the loss compares"));
  v.key("reference", t.reference, about("when the reference model is asked"));
  v.table("rollout", t.rollout, rollout_fields, about("the policy's samples: ppo, grpo"));
  v.table("lora", t.lora, lora_fields, about("adapters of lora and qlora"));
  v.key("trainable", t.trainable, about("parts of the model that train, the others are frozen"));
  v.key("frozen", t.frozen, about("parts of the model that are frozen"));
  v.key("base_quantization", t.base_quantization, about("qlora: how the frozen base is held"));
  v.key("unquantized", t.unquantized, about("qlora: type of the frozen rest"));
  train_size_fields(v, t);
  v.key("precision", t.precision, about("how numbers are held and multiplied"));
  v.table("optimizer", t.optimizer, optimizer_fields, about("a name or a table"), "name");
  v.key("gradient_clipping", t.gradient_clipping, about("by the global norm"));
  v.key("recompute", t.recompute, about("activations recomputed in backward"));
  v.key("use_reentrant", t.use_reentrant,
        about("checkpoints are CheckpointFunction's; default: as the framework does"));
  v.key("attention", t.attention, about("implementation of attention"));
  v.key("loss", t.loss, about("how the logits are held"));
  v.key("upcast_logits", t.upcast_logits,
        about("the loss widens 16-bit logits to fp32; default: as the framework does"));
  v.key("loss_in_model", t.loss_in_model,
        about("the model computes its loss, and compiles it; default: as the framework does"));
  v.key("keep_logits", t.keep_logits,
        about("the loop holds the logits through backward; default: as the framework does"));
  v.key("use_cache", t.use_cache,
        about("the model hands back keys and values beside its logits, as Hugging Face's do unless "
              "their own checkpointing or the loop switches it off"));
  v.key("compile", t.compile, about("the model runs through a compiler"));
  v.key("fused_kernels", t.fused_kernels, about("operators with a fused implementation"));
  v.key("memory_format", t.memory_format, about("of images"));
  v.key("allocator", t.allocator,
        about("PYTORCH_CUDA_ALLOC_CONF, such as \"expandable_segments:True\""));
  v.optional_table("fp8", t.fp8, fp8_fields, about("details of fp8-mixed"));
};

inline constexpr auto bucket_fields = [](auto& v, auto& b) {
  v.key("all_gather", b.all_gather, between(1, kMostBucketElements, "elements"));
  v.key("reduce", b.reduce, between(1, kMostBucketElements, "elements"));
  v.key("overlap", b.overlap, about("overlap_comm of ZeRO-1 and -2: a second bucket is filled"));
};

inline constexpr auto parallel_fields = [](auto& v, auto& p) {
  v.key("data", p.data, between(1, kMostRanks, "data-parallel replicas"));
  v.key("tensor", p.tensor, between(1, kMostRanks, "tensor-parallel ranks"));
  v.key("pipeline", p.pipeline, between(1, kMostRanks, "pipeline stages"));
  v.key("context", p.context, between(1, kMostRanks, "context-parallel ranks"));
  v.key("context_method", p.context_method,
        about("how keys and values reach the ranks of a context group"));
  v.key("expert", p.expert, between(1, kMostRanks, "expert-parallel ranks"));
  v.key("expert_tensor", p.expert_tensor,
        between(1, kMostRanks, "tensor-parallel ranks of experts"));
  v.key("expert_imbalance", p.expert_imbalance,
        between(1, kMostImbalance, "tokens of the fullest rank's experts over an even share"));
  v.key("expert_capacity", p.expert_capacity,
        between(1, kMostImbalance, "rows that each expert is padded to, over an even share"));
  v.key("sequence_parallel", p.sequence_parallel, about("between tensor-parallel blocks"));
  v.key("schedule", p.schedule, about("of the pipeline"));
  v.key("virtual_stages", p.virtual_stages, between(1, kMostLayers, "model chunks per stage"));
  v.key("sharding", p.sharding, about("of parameters, gradients and optimizer states"));
  v.key("shard_group", p.shard_group, between(1, kMostRanks, "ranks per sharding group"));
  v.key("reshard_after_forward", p.reshard_after_forward, about("free gathered parameters"));
  v.key("memory_efficient_linear", p.memory_efficient_linear,
        about("ZeRO-3's own linear layers; false: PyTorch's, which hold what was gathered"));
  v.table("buckets", p.buckets, bucket_fields, about("of gathers and reductions"));
  v.key("reduce_precision", p.reduce_precision, about("type of the gradient reduction"));
  v.key("stage_layers", p.stage_layers, between(0, kMostLayers, "layers per pipeline stage"));
  v.key("async_tensor", p.async_tensor, about("tensor collectives overlapped with GEMMs"));
  v.key("embeddings", p.embeddings, about("placement of recommendation tables"));
};

inline constexpr auto offload_fields = [](auto& v, auto& o) {
  v.key("parameters", o.parameters, about("where parameters live"));
  v.key("optimizer", o.optimizer, about("where optimizer states live"));
  v.key("activations", o.activations, none_or_cpu("where kept activations live"));
  v.key("gradients", o.gradients, none_or_cpu("where gradients live"));
  v.key("embeddings", o.embeddings, about("where recommendation tables live"));
  v.key("embedding_hits", o.embedding_hits,
        between(0, 1, "share of rows that the GPU's cache holds, uvm-caching"));
  v.key("pin_memory", o.pin_memory, about("host copies are page-locked"));
  v.key("pipelined", o.pipelined, about("NVMe is read and written while the host steps"));
  v.key("host_threads", o.host_threads,
        between(1, kMostCores, "threads of a rank, in the step that the host takes"));
};

inline constexpr auto data_fields = [](auto& v, auto& d) {
  v.key("kind", d.kind, about("of the samples"));
  v.key("samples", d.samples, between(1, kMostDatasetSamples, "in the dataset"));
  v.key("bytes_per_sample", d.bytes_per_sample,
        between(0, kMostSampleBytes, "bytes on storage, mean"));
  v.key("bytes_deviation", d.bytes_deviation,
        between(0, kMostSampleBytes, "standard deviation of bytes_per_sample"));
  v.key("stored_size", d.stored_size,
        items(2, 2, between(1, kMostPixels, "[height, width] of stored pictures, mean")));
  v.key("sizes_from", d.sizes_from, about("a real folder whose files are measured"));
  v.key("loader", d.loader, about("catalog/loaders; absent: the framework's own"));
  v.key("layout", d.layout, about("how samples are stored"));
  v.key("location", d.location, about("a storage name of the machine, or \"network\""));
  v.key("shuffle", d.shuffle, about("what is drawn at random"));
  v.key("workers", d.workers, between(0, kMostWorkers, "loader processes per GPU"));
  v.key("worker_start", d.worker_start, about("how loader processes are started"));
  v.key("prefetch", d.prefetch, between(0, kMostPrefetch, "batches ahead per worker"));
  v.key("pin_memory", d.pin_memory, about("batches are copied to page-locked memory"));
  v.key("decode", d.decode, about("where samples are decoded"));
  v.key("cache", d.cache, about("what keeps samples in host memory"));
  v.key("cache_shared", d.cache_shared, about("one cache in memory for all ranks of a node"));
  v.key("shuffle_buffer", d.shuffle_buffer,
        between(0, kMostDatasetSamples, "samples in the buffer that shuffles them"));
  v.key("decode_seconds", d.decode_seconds,
        between(0, kMostDecodeSeconds, "CPU seconds per sample on one core"));
};

inline constexpr auto checkpoint_fields = [](auto& v, auto& c) {
  v.key("every_steps", c.every_steps, between(1, kMostSteps, "optimizer steps"));
  v.key("method", c.method, about("how a checkpoint is written"));
  v.key("load", c.load, about("how weights are read at the start"));
};

inline constexpr auto machine_key_fields = [](auto& v, auto& m) {
  v.key("name", m.name, about("a catalogue id or a machine file"));
  v.key("nodes", m.nodes, between(1, kMostNodes, "nodes"));
  v.key("gpus", m.gpus, between(1, kMostGpusPerNode, "GPUs used per node"));
  v.key("fabric_gpus", m.fabric_gpus,
        between(1, kMostFabricGpus, "GPUs that direct links join, across nodes (72 of an NVL72)"));
  v.key("gpu", m.gpu, about("a bare GPU of the catalogue, instead of name"));
  v.key("ram_gib", m.ram_gib, between(kLeastGib, kMostMemoryGib, "GiB of host memory per node"));
  v.key("vram_gib", m.vram_gib, between(kLeastGib, kMostMemoryGib, "GiB of one GPU"));
  v.key("cores", m.cores, between(1, kMostCores, "physical cores per node"));
  v.key("host_tflops", m.host_tflops,
        between(kLeastRate, kMostHostTflops, "10^12 FLOP per second of products, all cores"));
  v.key("storage_gb_per_s", m.storage_gb_per_s,
        between(kLeastRate, kMostStorageGbPerSecond, "10^9 bytes per second read, per node"));
  v.key("storage_write_gb_per_s", m.storage_write_gb_per_s,
        between(kLeastRate, kMostStorageGbPerSecond, "10^9 bytes per second written, per node"));
  v.key("storage_total_gb_per_s", m.storage_total_gb_per_s,
        between(kLeastRate, kMostStorageGbPerSecond, "10^9 bytes per second read by all nodes"));
  v.key("gpu_link_gb_per_s", m.gpu_link_gb_per_s,
        between(0, kMostNetworkGbps,
                "10^9 bytes per second from GPU to GPU of a node, one way; 0: over PCIe"));
  v.key("network_gbps_per_gpu", m.network_gbps_per_gpu,
        between(kLeastRate, kMostNetworkGbps, "10^9 bits per second and GPU, between nodes"));
  v.key("numa_binding", m.numa_binding,
        about("each rank and its loaders are bound to the NUMA node of its GPU"));
  v.key("numa_memory", m.numa_memory, about("of bound ranks: strict is numactl --membind"));
};

inline constexpr auto import_fields = [](auto& v, auto& i) {
  constexpr Rule kPathOrTable = {.about = "a path, or the object itself", .text_allowed = true};
  v.key("megatron", i.megatron, kPathOrTable);
  v.key("deepspeed", i.deepspeed, kPathOrTable);
  v.key("accelerate", i.accelerate, kPathOrTable);
  v.key("torchtitan", i.torchtitan, kPathOrTable);
};

inline constexpr auto job_fields = [](auto& v, auto& job) {
  v.key("name", job.name, about("what the plan is called; default: the file's name"));
  v.key("framework", job.framework, about("whose habits decide what is kept and when"));
  v.key(
      "versions", job.versions,
      about("of the software, by package: { torch = \"2.6\" }; default: the framework's profile"));
  v.table("model", job.model, model_fields, about("what is trained"));
  v.table("train", job.train, train_fields, about("how it is trained"));
  v.table("parallel", job.parallel, parallel_fields, about("how it is spread over GPUs"));
  v.table("offload", job.offload, offload_fields, about("what leaves the GPU"));
  v.table("data", job.data, data_fields, about("the dataset and its loader"));
  v.table("checkpoint", job.checkpoint, checkpoint_fields, about("saving and loading"));
  v.table("machine", job.machine, machine_key_fields, about("where it runs"));
  v.table("import", job.import, import_fields, about("what another tool already has"));
};

}  // namespace steelyard::codec
