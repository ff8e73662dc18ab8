#include "ram/offload.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "ram/pinned.h"

namespace steelyard::ram {
namespace {

using facts::OffloadTo;
using facts::Sharding;

// DeepSpeed's defaults (runtime/zero/config.py, offload_config.py, swap_tensor/).
constexpr std::int64_t kSubGroupElements = 1'000'000'000;  // sub_group_size
constexpr std::int64_t kSwapBufferElements = 100'000'000;  // offload_param.buffer_size
constexpr std::int64_t kParameterSwapBuffers = 5;          // offload_param.buffer_count
constexpr std::int64_t kOptimizerSwapBuffers = 4;          // offload_optimizer.buffer_count
constexpr std::int64_t kMaxInCpu = 1'000'000'000;          // offload_param.max_in_cpu, elements
constexpr std::int64_t kFp32 = 4;

// What one rank is responsible for.
struct Share {
  std::int64_t trainable = 0;  // elements
  Bytes trainable_weights;     // as trained
  Bytes frozen_weights;
  Bytes gradients;  // as produced, before any fp32 copy
  Bytes master;     // fp32 copy that DeepSpeed updates
  Bytes moments;    // optimizer states without the master copy
};

// Those of a rank, `total` bytes, page-locked one by one when that is asked for.
Bytes page_locked_tensors(const Node& node, Bytes total, PinnedTensors tensors) {
  if (!node.job.offload.pin_memory) return total;
  tensors.parts = parts_of_a_weight(node);
  return total * rounding_of(node.states.weights, tensors);
}

Bytes page_locked_gradients(const Node& node, Bytes total) {
  const double trainable = static_cast<double>(node.states.trainable.value());
  const double width = trainable > 0.0 ? node.states.gradient_bytes.real() / trainable : 0.0;
  return page_locked_tensors(node, total, {.bytes_per_element = width});
}

Share share_of_a_rank(const Node& node) {
  const step::StateSizes& states = node.states;
  const std::int64_t parts = checked_multiply(node.model_parallel, node.shards);
  Share share;
  share.trainable = ceil_divide(states.trainable.value(), parts);
  share.trainable_weights = ceil_divide(states.trainable_bytes, parts);
  share.frozen_weights = ceil_divide(states.parameter_bytes - states.trainable_bytes, parts);
  share.gradients = ceil_divide(states.gradient_bytes, parts);
  share.master = Bytes(checked_multiply(share.trainable, kFp32));
  const bool master_counted = node.job.train.optimizer.master_weights.value_or(false);
  const Bytes states_per_rank = ceil_divide(states.optimizer_bytes, parts);
  share.moments =
      master_counted ? std::max(Bytes(), states_per_rank - share.master) : states_per_rank;
  return share;
}

// `elements` in pieces of at most one sub-group, each page-locked by itself.
Bytes page_locked_sub_groups(std::int64_t elements, std::int64_t width, bool pin) {
  const std::int64_t whole = elements / kSubGroupElements;
  const Bytes one = page_locked(Bytes(checked_multiply(kSubGroupElements, width)), pin);
  return one * whole +
         page_locked(Bytes(checked_multiply(elements % kSubGroupElements, width)), pin);
}

// ZeRO-1/2 with the optimizer on the CPU (stage_1_and_2.py, __init__ and
// initialize_optimizer_states): pinned fp32 partition, pinned short copy of it, pinned fp32
// gradient, one pinned temporary of the largest parameter; the Adam moments are ordinary memory.
void add_zero12(const Node& node, const Share& share, OffloadedStates& held, Notes& notes) {
  const bool pin = node.job.offload.pin_memory;
  held.optimizer += page_locked(share.master, pin) + share.moments;
  held.parameters += page_locked(share.trainable_weights, pin);
  held.gradients +=
      page_locked(share.master, pin) + page_locked(node.states.largest_block_bytes, pin);
  if (node.job.train.gradient_accumulation.value_or(1) > 1) {
    held.gradients += page_locked_gradients(node, share.gradients);
  }
  notes.push_back(
      {"offload: ZeRO-1/2 keeps per rank a page-locked fp32 partition, its short copy, the fp32 "
       "gradients and one temporary (at most the largest block), and the moments in ordinary "
       "memory.",
       Provenance::derived, "deepspeed/runtime/zero/stage_1_and_2.py"});
}

// Megatron-LM's hybrid optimizer with all on the CPU (HybridDeviceOptimizer): of each parameter
// that a rank steps a page-locked fp32 copy and a page-locked fp32 gradient, and
// torch.optim.AdamW's moments. A rank's share is a range of the buffer, so most of its parameters
// are whole. The short copy that the fp32 one is made of leaves its block in the pinned allocator.
void add_hybrid(const Node& node, const Share& share, OffloadedStates& held, Notes& notes) {
  const bool pin = node.job.offload.pin_memory;
  const PinnedTensors wide{.bytes_per_element = kFp32,
                           .parts = std::max<std::int64_t>(1, node.job.parallel.tensor)};
  const Bytes copies = pin ? share.master * rounding_of(node.states.weights, wide) : share.master;
  held.optimizer += copies + Bytes(checked_multiply(share.trainable, 2 * kFp32));
  held.gradients += copies;
  if (pin) held.parameters += page_locked(node.states.largest_block_bytes, pin);
  notes.push_back(
      {"offload: the hybrid optimizer keeps per rank, of what it steps, fp32 parameters and fp32 "
       "gradients page-locked tensor by tensor, both moments in ordinary memory, and one pinned "
       "block of the short parameters.",
       Provenance::derived, "megatron/core/optimizer/cpu_offloading/hybrid_optimizer.py"});
}

// ZeRO-3 with the optimizer on the CPU (stage3.py, _create_fp32_partitions,
// initialize_optimizer_states, _setup_for_real_optimizer).
void add_zero3_optimizer(const Node& node, const Share& share, OffloadedStates& held,
                         Notes& notes) {
  const bool pin = node.job.offload.pin_memory;
  held.optimizer += share.master + share.moments;
  held.gradients +=
      page_locked_sub_groups(share.trainable, kFp32, pin) + page_locked(share.gradients, pin);
  notes.push_back(
      {"offload: ZeRO-3 keeps per rank the fp32 partition and the moments in ordinary memory, and "
       "page-locks fp32 gradients (in pieces of 1e9 elements) and one flat short gradient buffer.",
       Provenance::derived, "deepspeed/runtime/zero/stage3.py"});
}

// ZeRO-3 with parameters on the CPU: each partitioned parameter is page-locked by itself
// (partition_parameters.py); trainable ones then move into one flat page-locked buffer
// (_create_param_groups_fp16_flat_cpu_memory), and the allocator keeps the freed first blocks.
void add_zero3_parameters(const Node& node, const Share& share, OffloadedStates& held,
                          Notes& notes) {
  const bool pin = node.job.offload.pin_memory;
  const PinnedTensors frozen{.trainable = false, .frozen = true};
  held.parameters +=
      pinned(share.trainable_weights) + page_locked_tensors(node, share.frozen_weights, frozen);
  if (!pin) return;
  const Bytes left = page_locked_tensors(node, share.trainable_weights, {});
  held.parameters += left;
  notes.push_back({fmt::format("offload: ZeRO-3 moves trainable parameters into one flat "
                               "page-locked buffer; the pinned "
                               "allocator keeps the blocks they came from, each rounded up to a "
                               "power of two: {} per rank "
                               "for {}.",
                               to_text(left), to_text(share.trainable_weights)),
                   Provenance::derived,
                   "deepspeed/runtime/zero/stage3.py, partition_parameters.py"});
}

// FSDP's CPU offload and plain loops: shards page-locked tensor by tensor, states as they are.
void add_plain(const Node& node, const Share& share, OffloadedStates& held, Notes& notes) {
  const facts::OffloadKeys& offload = node.job.offload;
  if (offload.parameters == OffloadTo::cpu) {
    held.parameters +=
        page_locked_tensors(node, share.trainable_weights + share.frozen_weights, {.frozen = true});
  }
  if (offload.gradients == OffloadTo::cpu) {
    held.gradients += page_locked_gradients(node, share.gradients);
  }
  if (offload.optimizer == OffloadTo::cpu) {
    held.optimizer += ceil_divide(node.states.optimizer_bytes,
                                  checked_multiply(node.model_parallel, node.shards));
  }
  notes.push_back(
      {"offload: shards of parameters and gradients are page-locked tensor by tensor, each rounded "
       "up to a power of two; optimizer states are ordinary memory.",
       Provenance::derived, "FSDP CPUOffload; CachingHostAllocator.h rounds up"});
}

// ZeRO-Infinity: swap buffers instead of states.
void add_nvme(const Node& node, const Share& share, OffloadedStates& held, Notes& notes) {
  const facts::OffloadKeys& offload = node.job.offload;
  const std::int64_t width = 2;  // fp16 or bf16
  if (offload.parameters == OffloadTo::nvme) {
    held.parameters += pinned(Bytes(kParameterSwapBuffers * kSwapBufferElements * width)) +
                       pinned(std::min(share.trainable_weights, Bytes(kMaxInCpu * width)));
    notes.push_back(
        {"offload: parameters on NVMe still need 5 swap buffers of 1e8 elements and up to 1e9 "
         "parameters in host memory per rank (DeepSpeed's defaults).",
         Provenance::derived, "deepspeed/runtime/swap_tensor, offload_config.py"});
    // New parameters leave from a buffer as large as a sub-group: stage3.py sizes it by whole
    // parameters (ds_numel), not by this rank's parts of them.
    if (share.trainable > kMaxInCpu) {
      const Bytes pool(checked_multiply(checked_multiply(kSubGroupElements, node.shards), width));
      held.parameters += pool;
      notes.push_back(
          {fmt::format("offload: new parameters leave for NVMe from a buffer per rank that holds a "
                       "sub-group of 1e9 elements of each of {} ranks: {}.",
                       node.shards, to_text(pool)),
           Provenance::derived, "deepspeed/runtime/zero/stage3.py: sized by ds_numel"});
    }
  }
  if (offload.optimizer == OffloadTo::nvme) {
    const std::int64_t largest = std::min(share.trainable, kSubGroupElements);
    // Pipelined, one sub-group comes and another leaves while a third is stepped.
    const std::int64_t buffers = kOptimizerSwapBuffers * (offload.pipelined ? 3 : 1);
    held.optimizer += pinned(Bytes(checked_multiply(largest, kFp32))) * buffers;
    notes.push_back({fmt::format("offload: optimizer states on NVMe still need {} page-locked swap "
                                 "buffers of the largest "
                                 "sub-group (at most 1e9 elements) per rank (buffer_count).",
                                 buffers),
                     Provenance::derived, "deepspeed/runtime/swap_tensor, offload_config.py"});
  }
}

Error refused(ErrorCode code, const char* key, std::string found, const char* accepted) {
  return Error{.code = code,
               .subject = key,
               .found = std::move(found),
               .accepted = accepted,
               .hint = "",
               .file = "",
               .line = std::nullopt};
}

Result<void> check(const Node& node) {
  const facts::OffloadKeys& offload = node.job.offload;
  if (offload.activations == OffloadTo::nvme) {
    return fail(refused(ErrorCode::not_supported, "offload.activations",
                        std::string(facts::name_of(offload.activations)),
                        "\"none\" or \"cpu\" in this version"));
  }
  const bool nvme = offload.parameters == OffloadTo::nvme || offload.optimizer == OffloadTo::nvme ||
                    offload.gradients == OffloadTo::nvme;
  if (nvme && node.job.parallel.sharding != Sharding::zero3) {
    return fail(refused(ErrorCode::impossible_combination, "offload",
                        "nvme with parallel.sharding = \"" +
                            std::string(facts::name_of(node.job.parallel.sharding)) + "\"",
                        "nvme with parallel.sharding = \"zero3\""));
  }
  return {};
}

}  // namespace

Result<OffloadedStates> offloaded_states(const Node& node, Notes& notes) {
  STEELYARD_CHECK(check(node));
  const facts::OffloadKeys& offload = node.job.offload;
  OffloadedStates held;
  if (offload.parameters == OffloadTo::none && offload.gradients == OffloadTo::none &&
      offload.optimizer == OffloadTo::none) {
    return held;
  }
  const Share share = share_of_a_rank(node);
  const Sharding sharding = node.job.parallel.sharding;
  if (sharding == Sharding::zero3) {
    if (offload.optimizer == OffloadTo::cpu) add_zero3_optimizer(node, share, held, notes);
    if (offload.parameters == OffloadTo::cpu) add_zero3_parameters(node, share, held, notes);
    add_nvme(node, share, held, notes);
  } else if (node.job.megatron && node.job.megatron->gradient_buffer &&
             offload.optimizer ==
                 OffloadTo::cpu) {  // not where DeepSpeed's engine drives the model
    add_hybrid(node, share, held, notes);
  } else if ((sharding == Sharding::zero1 || sharding == Sharding::zero2) &&
             offload.optimizer == OffloadTo::cpu) {
    add_zero12(node, share, held, notes);
  } else {
    add_plain(node, share, held, notes);
  }
  held.parameters = held.parameters * node.ranks;
  held.gradients = held.gradients * node.ranks;
  held.optimizer = held.optimizer * node.ranks;
  return held;
}

}  // namespace steelyard::ram
