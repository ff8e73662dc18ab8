#include "ram/staging.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "ram/pinned.h"

namespace steelyard::ram {
namespace {

// Plain from_pretrained holds the initialised model and the file's tensors (two copies); others
// hold one copy and the file shard that is being read.
Bytes one_rank_loads(const Node& node, Ratio copies) {
  const Bytes full = node.states.parameter_bytes;
  if (copies > Ratio(1.0)) return full * copies;
  return full + std::min(full, node.constants.largest_checkpoint_shard);
}

// Serialising a state that a rank has already: storage after storage, at most a file shard at once.
Bytes streamed(const Node& node, Bytes state) {
  return std::min(state, node.constants.largest_checkpoint_shard);
}

// The model itself as its constructor makes it, where that is in host memory: a plain loop and
// from_pretrained without device_map build all of it on the CPU before it moves to the card
// (transformers 4.49, modeling_utils.py: only device_map, quantizers, FSDP and ZeRO-3 start from
// meta tensors). Ranks that divide the parameters fill in their parts.
bool builds_whole_model(const Node& node) {
  const bool quantized = node.job.train.base_quantization != facts::BaseQuantization::none;
  return node.loading == "whole" && !splits_parameters(node) && !quantized;
}

// Where the model stays in host memory, what reading needs beside it: a mapped file is copied from
// directly, torch.load makes a second copy (of one file).
Bytes load_beside_model(const Node& node, Notes& notes) {
  const Bytes full = node.states.parameter_bytes;
  const Bytes file = std::min(full, node.constants.largest_checkpoint_shard);
  Bytes held;
  switch (node.job.checkpoint.load) {
    case facts::CheckpointLoad::per_rank: held = file * node.ranks; break;
    case facts::CheckpointLoad::rank0: held = file; break;
    case facts::CheckpointLoad::mmap:
    case facts::CheckpointLoad::meta: break;
  }
  notes.push_back(
      {fmt::format("model_load: beside the model, which stays in host memory, {} of the "
                   "checkpoint's tensors.",
                   to_text(held)),
       Provenance::measured,
       "validation/record_ram.py: torch.load makes a second copy, a mapped file none"});
  return held;
}

}  // namespace

Bytes load_transient(const Node& node, Notes& notes) {
  if (node.tensors) return load_beside_model(node, notes);
  switch (node.job.checkpoint.load) {
    case facts::CheckpointLoad::mmap: {
      if (builds_whole_model(node)) {
        notes.push_back(
            of_pytorch(node,
                       fmt::format("model_load: {} makes the whole model ({}) in host memory and "
                                   "copies mapped files into it before it moves to the GPU.",
                                   each_rank(node.ranks), to_text(node.states.made_bytes)),
                       Provenance::derived,
                       "transformers modeling_utils.py: made on the CPU unless device_map, a "
                       "quantizer, FSDP or ZeRO-3 asks for meta tensors"));
        return node.states.made_bytes * node.ranks;
      }
      const Bytes held = node.states.largest_block_bytes * node.ranks;
      notes.push_back(
          of_pytorch(node,
                     fmt::format("model_load: files are mapped, so their pages are reclaimable "
                                 "cache; {} converts one block at a time ({}).",
                                 each_rank(node.ranks), to_text(node.states.largest_block_bytes)),
                     Provenance::derived, "safetensors, torch.load(mmap=True)"));
      return held;
    }
    case facts::CheckpointLoad::per_rank: {
      const Bytes each = one_rank_loads(node, node.load_copies);
      notes.push_back(of_pytorch(
          node,
          fmt::format("model_load: {} reads the whole state by itself, {} per rank.",
                      each_rank(node.ranks), to_text(each)),
          Provenance::derived,
          "torch.load; the profile's load_copies; file shards of at most 5 GB (transformers)"));
      return each * node.ranks;
    }
    case facts::CheckpointLoad::rank0: {
      const Bytes each = one_rank_loads(node, Ratio(1.0));
      notes.push_back(of_pytorch(
          node,
          fmt::format(
              "model_load: rank 0 reads the whole state ({}) and sends the others their parts.",
              to_text(each)),
          Provenance::derived,
          "transformers is_fsdp_enabled, accelerate cpu_ram_efficient_loading"));
      return each;
    }
    case facts::CheckpointLoad::meta:
      notes.push_back(of_pytorch(
          node, "model_load: created on the meta device, nothing passes through host memory.",
          Provenance::derived, "torch.device(\"meta\")"));
      return Bytes();
  }
  return Bytes();
}

Bytes checkpoint_size(const Node& node) {
  const step::StateSizes& states = node.states;
  Bytes parameters = states.parameter_bytes - states.frozen_beside;
  if (node.job.train.method != facts::Method::full) parameters = states.trainable_bytes;
  return parameters + states.optimizer_bytes;
}

// torch.save writes tensors in host memory from where they are (storage after storage, no copy);
// a snapshot is a copy in ordinary memory: nothing is pinned without a card.
Bytes staging_beside_model(const Node& node, Bytes full, Bytes part, Notes& notes) {
  Bytes held;
  switch (node.job.checkpoint.method) {
    case facts::CheckpointMethod::sync: held = is_split(node) ? full : Bytes(); break;
    case facts::CheckpointMethod::async: held = full; break;
    case facts::CheckpointMethod::sharded_sync: break;
    case facts::CheckpointMethod::sharded_async: held = part * node.ranks; break;
  }
  notes.push_back(
      {fmt::format("checkpoint: {} beside the states, which are in host memory already.",
                   to_text(held)),
       Provenance::derived, "torch.save writes storages from where they are"});
  return held;
}

// Tensors of the weights and of the optimizer's states, one by one; states of four bytes an element
// or, where all of them together have less, of that.
Bytes page_locked_snapshot(const Node& node, Bytes held, std::int64_t parts) {
  const step::StateSizes& states = node.states;
  const Bytes whole = checkpoint_size(node);
  if (whole == Bytes() || states.weights.empty()) return held * kRoundingOfUnknown;
  const bool all = node.job.train.method == facts::Method::full;
  const double trainable = static_cast<double>(states.trainable.value());
  const double each = trainable > 0.0 ? states.optimizer_bytes.real() / trainable : 0.0;
  const Ratio weights = rounding_of(states.weights, {.frozen = all, .parts = parts});
  const Ratio moments =
      rounding_of(states.weights, {.bytes_per_element = std::min(each, 4.0), .parts = parts});
  const Bytes of_weights = whole - states.optimizer_bytes;
  const Bytes pinned = of_weights * weights + states.optimizer_bytes * moments;
  return held * (pinned / whole);
}

// A library that stages in ordinary memory and writes from copies of its own.
Bytes copied(const Node& node, Bytes state, Notes& notes) {
  notes.push_back(
      {fmt::format("checkpoint: {} are copied to ordinary host memory and held {:.3g} times while "
                   "they are written.",
                   to_text(state), node.staging_copies.value()),
       Provenance::catalogue, "the framework's profile (staging_copies)"});
  return state * node.staging_copies;
}

Bytes checkpoint_staging(const Node& node, Notes& notes) {
  if (node.job.checkpoint.every_steps.value_or(0) <= 0) {
    notes.push_back({"checkpoint: none while training, so that phase equals the steady state.",
                     Provenance::given, "checkpoint.every_steps"});
    return Bytes();
  }
  const Bytes full = checkpoint_size(node);
  const std::int64_t all_ranks = checked_multiply(node.ranks, node.nodes);
  const Bytes part = ceil_divide(full, all_ranks);
  if (node.tensors) return staging_beside_model(node, full, part, notes);
  switch (node.job.checkpoint.method) {
    case facts::CheckpointMethod::sync:
      if (!is_split(node)) {
        notes.push_back(of_pytorch(
            node,
            fmt::format(
                "checkpoint: rank 0 has the whole state ({}) and writes it tensor by tensor, "
                "at most one file shard at once.",
                to_text(full)),
            Provenance::derived,
            "torch.save writes storage after storage; file shards of at most 5 GB "
            "(transformers)"));
        return streamed(node, full);
      }
      notes.push_back(of_pytorch(
          node,
          fmt::format("checkpoint: the whole state, {}, is gathered in rank 0's host memory.",
                      to_text(full)),
          Provenance::derived,
          "FSDP FULL_STATE_DICT with offload_to_cpu and rank0_only, zero_to_fp32"));
      return full;
    case facts::CheckpointMethod::async:
      if (node.staging_copies > Ratio(0.0)) return copied(node, full, notes);
      notes.push_back(of_pytorch(
          node,
          fmt::format(
              "checkpoint: rank 0 keeps a page-locked snapshot of the whole state while it is "
              "written, {} with each tensor rounded up to a power of two.",
              to_text(full)),
          Provenance::derived,
          "torch.distributed.checkpoint async_save; CachingHostAllocator.h rounds up"));
      return page_locked_snapshot(node, full, 1);
    case facts::CheckpointMethod::sharded_sync:
      notes.push_back(of_pytorch(
          node,
          fmt::format("checkpoint: {} writes its own part ({}), at most one file shard at once.",
                      each_rank(node.ranks), to_text(part)),
          Provenance::derived,
          "torch.distributed.checkpoint, DeepSpeed engine.py save_checkpoint"));
      return streamed(node, part) * node.ranks;
    case facts::CheckpointMethod::sharded_async:
      if (node.staging_copies > Ratio(0.0)) return copied(node, part * node.ranks, notes);
      notes.push_back(of_pytorch(
          node,
          fmt::format("checkpoint: {} keeps a page-locked snapshot of its own part ({}) while it "
                      "is written, each tensor rounded up to a power of two.",
                      each_rank(node.ranks), to_text(part)),
          Provenance::derived,
          "torch.distributed.checkpoint async_save; CachingHostAllocator.h rounds up"));
      return page_locked_snapshot(node, part * node.ranks, parts_of_a_weight(node));
  }
  return Bytes();
}

Bytes model_file(const Node& node) {
  constexpr std::int64_t kShortBytes = 2;  // published checkpoints are bf16 or fp16
  return std::min(node.states.parameter_bytes,
                  Bytes(checked_multiply(node.states.parameters.value(), kShortBytes)));
}

}  // namespace steelyard::ram
