// What a job that starts from Megatron-LM's arguments says beyond the job file's own keys: words of
// technique that decide what a GPU holds. An import fills it, or plan/engine_states.h.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/quantity.h"
#include "facts/dtype.h"

namespace steelyard::facts {

struct MegatronKeys {
  // Persistent buffers (megatron/core/distributed/param_and_grad_buffer.py): gradients are added
  // into one zeroed buffer per type that lives as long as the job; with the distributed optimizer
  // the parameters are views of a buffer too.
  bool gradient_buffer = true;
  DType main_gradients = DType::fp32;  // type of that buffer
  // Another engine than Megatron's holds the states (DeepSpeed's BF16_Optimizer): gradients are
  // also summed up in fp32, whole on every rank.
  bool wide_gradient_copy = false;
  bool distributed_optimizer = false;
  bool pads_for_high_bandwidth = false;         // bucket ends at multiples of 2^16
  std::optional<std::int64_t> bucket_elements;  // --ddp-bucket-size; absent: max(40e6, 1e6 x data)
  bool overlaps_reduction = false;              // without: one bucket
  std::int64_t optimizer_instances = 1;

  // The optimizer's own copies and states.
  DType main_parameters = DType::fp32;
  DType first_moment = DType::fp32, second_moment = DType::fp32;

  // Matrix gradients are accumulated inside the product, straight into the buffer: no tensor of
  // their own (--gradient-accumulation-fusion, on by default).
  bool fused_weight_gradients = true;

  // Workspaces of the engine's own products: one, and one for each of the four streams of grouped
  // ones (TransformerEngine pytorch/cpp_extensions/gemm.py, get_cublas_workspace).
  std::int64_t engine_workspaces = 1;
  // --deterministic-mode demands CUBLAS_WORKSPACE_CONFIG=:4096:8, on every GPU.
  std::optional<Bytes> library_workspace;

  // --defer-embedding-wgrad-compute: the output projection's weight gradient of so many
  // micro-batches (0: all) is computed when the pipeline has drained; until then the logits'
  // gradients are kept.
  std::optional<std::int64_t> deferred_head_gradients;

  // Modules that selective recomputation runs again; "core_attn" alone is train.recompute's.
  std::vector<std::string> recomputed_modules;

  // Micro-batches that a chunk passes before the next chunk's turn; 0: as many as stages.
  std::int64_t micro_batch_group = 0;

  // Layers of each model chunk in the order of the model (first chunk of every stage, then the
  // second ...), when they are not even; empty otherwise.
  std::vector<std::int64_t> chunk_layers;

  // Switches that the arguments do not give and that count as on all the same: they describe a run
  // and are no whole command line (catalog/import/megatron.toml, [description]).
  std::vector<std::string> assumed_switches;
  std::vector<std::string> assumed_values;  // the same of arguments with a value, "name = value"

  // Words laid over the framework profile's [operators].
  std::map<std::string, std::string, std::less<>> operators;
};

}  // namespace steelyard::facts
