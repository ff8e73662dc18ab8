// The closed lists of words of the contract (job-format.md), each once: the enumeration and the
// names that files use for it. Names are fixed; new ones may be added.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>

namespace steelyard::facts {

// Specialised for each enumeration below: `values[i]` is the name of enumerator i.
template <class Enum>
struct EnumNames;

template <class Enum>
[[nodiscard]] constexpr std::string_view name_of(Enum value) {
  return EnumNames<Enum>::values[static_cast<std::size_t>(value)];
}

template <class Enum>
[[nodiscard]] constexpr std::optional<Enum> from_name(std::string_view name) {
  for (std::size_t i = 0; i < EnumNames<Enum>::values.size(); ++i) {
    if (EnumNames<Enum>::values[i] == name) return static_cast<Enum>(i);
  }
  return std::nullopt;
}

#define STEELYARD_ENUM_NAMES(Enum, ...)                                            \
  template <>                                                                      \
  struct EnumNames<Enum> {                                                         \
    static constexpr auto values = std::to_array<std::string_view>({__VA_ARGS__}); \
  };

enum class Method { full, lora, qlora };
STEELYARD_ENUM_NAMES(Method, "full", "lora", "qlora")

enum class BaseQuantization { none, nf4, nf4_dq, fp4, int8, gptq_int4 };
STEELYARD_ENUM_NAMES(BaseQuantization, "none", "nf4", "nf4-dq", "fp4", "int8", "gptq-int4")

// How numbers are held and multiplied. *-mixed: parameters in fp32, arithmetic in the short type
// (autocast or FSDP mixed precision); bf16, fp16: parameters themselves are short.
enum class Precision {
  fp32,
  tf32,
  fp16_mixed,
  bf16_mixed,
  bf16,
  fp16,
  fp8_mixed,
  mxfp8_mixed,
  nvfp4_mixed
};
STEELYARD_ENUM_NAMES(Precision, "fp32", "tf32", "fp16-mixed", "bf16-mixed", "bf16", "fp16",
                     "fp8-mixed", "mxfp8-mixed", "nvfp4-mixed")

enum class OptimizerName {
  adamw,
  adam,
  adamw8bit,
  adamw4bit,
  adamw_fp8,
  paged_adamw,
  paged_adamw8bit,
  adafactor,
  lion,
  muon,
  lamb,
  rmsprop,
  sgd,
  sgd_momentum
};
STEELYARD_ENUM_NAMES(OptimizerName, "adamw", "adam", "adamw8bit", "adamw4bit", "adamw-fp8",
                     "paged-adamw", "paged-adamw8bit", "adafactor", "lion", "muon", "lamb",
                     "rmsprop", "sgd", "sgd-momentum")

enum class RecomputeMode { none, selective, selective_op, full };
STEELYARD_ENUM_NAMES(RecomputeMode, "none", "selective", "selective-op", "full")

enum class RecomputeMethod { uniform, block };
STEELYARD_ENUM_NAMES(RecomputeMethod, "uniform", "block")

// math: the model's own code | sdpa_math: what PyTorch's scaled_dot_product_attention writes out
// where no kernel of its runs
enum class Attention { flash, efficient, math, cudnn, sdpa_math };
STEELYARD_ENUM_NAMES(Attention, "flash", "efficient", "math", "cudnn", "sdpa-math")

// The scores of all queries and keys are tensors.
[[nodiscard]] constexpr bool writes_scores(Attention attention) {
  return attention == Attention::math || attention == Attention::sdpa_math;
}

enum class Loss { full, chunked, fused };
STEELYARD_ENUM_NAMES(Loss, "full", "chunked", "fused")

enum class FusedKernel { rmsnorm, rope, swiglu, cross_entropy, lora, moe };
STEELYARD_ENUM_NAMES(FusedKernel, "rmsnorm", "rope", "swiglu", "cross_entropy", "lora", "moe")

enum class MemoryFormat { contiguous, channels_last };
STEELYARD_ENUM_NAMES(MemoryFormat, "contiguous", "channels_last")

enum class Fp8Recipe { delayed, tensorwise, rowwise, blockwise };
STEELYARD_ENUM_NAMES(Fp8Recipe, "delayed", "tensorwise", "rowwise", "blockwise")

enum class Schedule { one_f_one_b, interleaved, gpipe, zero_bubble, dualpipe };
STEELYARD_ENUM_NAMES(Schedule, "1f1b", "interleaved", "gpipe", "zero-bubble", "dualpipe")

enum class ContextMethod { ring, all_gather };
STEELYARD_ENUM_NAMES(ContextMethod, "ring", "all-gather")

enum class Sharding { none, zero1, zero2, zero3, fsdp, fsdp1, hsdp, shard_grad_op };
STEELYARD_ENUM_NAMES(Sharding, "none", "zero1", "zero2", "zero3", "fsdp", "fsdp1", "hsdp",
                     "shard-grad-op")

enum class ShortPrecision { fp32, bf16, fp16 };  // of gradient reduction, optimizer state, ...
STEELYARD_ENUM_NAMES(ShortPrecision, "fp32", "bf16", "fp16")

enum class EmbeddingPlacement { replicated, table_wise, row_wise, column_wise };
STEELYARD_ENUM_NAMES(EmbeddingPlacement, "replicated", "table-wise", "row-wise", "column-wise")

enum class OffloadTo { none, cpu, nvme };
STEELYARD_ENUM_NAMES(OffloadTo, "none", "cpu", "nvme")

enum class EmbeddingOffload { none, cpu, uvm, uvm_caching };
STEELYARD_ENUM_NAMES(EmbeddingOffload, "none", "cpu", "uvm", "uvm-caching")

enum class DataKind { tokens, text, jpeg, png, video, audio, npz, tabular, synthetic };
STEELYARD_ENUM_NAMES(DataKind, "tokens", "text", "jpeg", "png", "video", "audio", "npz", "tabular",
                     "synthetic")

enum class DataLayout { files, tar, tfrecord, memmap, parquet };
STEELYARD_ENUM_NAMES(DataLayout, "files", "tar", "tfrecord", "memmap", "parquet")

// Where the memory of bound ranks comes from. preferred: from the rank's node while it has room,
// else from others (the kernel's default, which torchrun's --numa-binding leaves alone). strict:
// from nowhere else (numactl --membind); a rank that its node has no room for is killed.
enum class NumaMemory { preferred, strict };
STEELYARD_ENUM_NAMES(NumaMemory, "preferred", "strict")

// How loader processes come to be: multiprocessing's start methods.
enum class WorkerStart { fork, spawn, forkserver };
STEELYARD_ENUM_NAMES(WorkerStart, "fork", "spawn", "forkserver")

enum class Shuffle { sample, shard, none };
STEELYARD_ENUM_NAMES(Shuffle, "sample", "shard", "none")

enum class DecodeOn { cpu, gpu };
STEELYARD_ENUM_NAMES(DecodeOn, "cpu", "gpu")

enum class DataCache { none, page, ram, ram_encoded };
STEELYARD_ENUM_NAMES(DataCache, "none", "page", "ram", "ram-encoded")

enum class CheckpointMethod { sync, async, sharded_sync, sharded_async };
STEELYARD_ENUM_NAMES(CheckpointMethod, "sync", "async", "sharded-sync", "sharded-async")

enum class CheckpointLoad { mmap, per_rank, rank0, meta };
STEELYARD_ENUM_NAMES(CheckpointLoad, "mmap", "per-rank", "rank0", "meta")

// What the loss compares: labels, pairs of answers, judged answers, scores of pairs, or the
// policy's own samples. Names as in TRL.
enum class Objective { sft, dpo, orpo, kto, reward, ppo, grpo };
STEELYARD_ENUM_NAMES(Objective, "sft", "dpo", "orpo", "kto", "reward", "ppo", "grpo")

// What a model does in a job of several.
enum class Role { policy, reference, reward, critic };
STEELYARD_ENUM_NAMES(Role, "policy", "reference", "reward", "critic")

// Whether the reference is asked in the step, was asked once before it, or is not there.
enum class ReferenceUse { live, precomputed, none };
STEELYARD_ENUM_NAMES(ReferenceUse, "live", "precomputed", "none")

// Who samples: the trained model's own code | an inference engine on the same cards | other cards.
enum class RolloutEngine { model, colocated, separate };
STEELYARD_ENUM_NAMES(RolloutEngine, "model", "colocated", "separate")

// On the card | on the card until what it computes once is stored | in host memory, and its forward
// pass runs on the host's processors.
enum class CompanionHeld { always, load, cpu };
STEELYARD_ENUM_NAMES(CompanionHeld, "always", "load", "cpu")

}  // namespace steelyard::facts
