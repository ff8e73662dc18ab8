// How one rank holds the model's states: types and shards, from the job's precision, optimizer and
// sharding. The table and its sources: docs/model/vram.md, "States".
#pragma once

#include <cstdint>
#include <optional>

#include "base/error.h"
#include "facts/dtype.h"
#include "facts/job.h"
#include "step/adapters.h"
#include "step/offload_rules.h"
#include "step/persistent_buffers.h"
#include "step/tape.h"

namespace steelyard::step {

struct OptimizerLayout {
  std::int64_t states = 2;  // full-size state tensors per parameter
  facts::DType state = facts::DType::fp32;
  std::optional<facts::DType> second_state;  // where it differs
  // Muon steps the matrices of the layers; embeddings, the head and vectors take AdamW's two
  // states.
  bool matrices_only = false;
  // States as codes of `code_bits`, with an fp32 statistic for each block of codes.
  bool in_blocks = false;
  std::int64_t code_bits = 8;
  std::int64_t block = 256;
  bool paged = false;     // states in managed memory (bitsandbytes' paged optimizers)
  bool factored = false;  // Adafactor: a row and a column vector per matrix
  // Copies of the parameters (in the stepped type) that live during the step: foreach needs one for
  // the square root of the second moment (torch/optim/adamw.py), loops one of the largest
  // parameter.
  std::int64_t step_copies = 0;
  bool loop = false;        // parameter by parameter: temporaries of one at a time
  bool functional = false;  // a loop that replaces what it steps by new tensors
  bool fused = false;
  bool counts_on_device = true;  // a fused step keeps its count per parameter on the GPU
  double passes = 7.0;           // reads and writes of the parameters during the step
};

struct Layout {
  Arithmetic arithmetic;
  facts::DType parameter = facts::DType::fp32;    // held between steps
  facts::DType used = facts::DType::fp32;         // what the operators see (gathered type)
  facts::DType gradient = facts::DType::fp32;     // held after reduction
  facts::DType reduce = facts::DType::fp32;       // of the collective
  facts::DType stepped = facts::DType::fp32;      // what the optimizer updates
  bool master = false;                            // an extra copy of the parameters ...
  facts::DType master_type = facts::DType::fp32;  // ... in fp32, or what of it is stored
  facts::DType adapter = facts::DType::fp32;      // low-rank adapters
  facts::DType frozen_norm = facts::DType::fp32;  // norms that do not train
  facts::BaseQuantization quantization = facts::BaseQuantization::none;
  bool nested_statistics = false;   // 4-bit statistics are themselves quantized
  bool quantized_subclass = false;  // 4-bit matrices are torchao's NF4Tensor
  std::int64_t data = 1;            // ranks with the same parameters
  std::int64_t group = 1;           // ranks per sharding group
  std::int64_t parameter_shards = 1, gradient_shards = 1, optimizer_shards = 1;
  std::int64_t expert_replicas = 1;  // ranks that hold the same experts: those share their states
  bool reduces_beside = true;        // gradients are summed beside the pass that makes them
  bool gathers = false;              // parameters are gathered layer by layer (ZeRO-3, FSDP)
  bool reshards = true;              // and released after forward
  bool flat_parameters = false;      // FSDP1: a unit is views of one flat tensor
  bool flat_buckets = false;         // DeepSpeed's reduce buckets
  HostStates on_host;                // offload.*
  std::optional<Bytes> card;         // memory of the GPU, where it is known
  // FSDP1 keeps the sharded gradient (FlatParameter._saved_grad_shard) through zero_grad until the
  // next forward: measured in fms_acceleration, where four copies of the shard stay allocated
  // between steps, not three, and only three are there at the peak in backward.
  bool gradients_outlive_step = false;
  // Megatron-LM's contiguous buffers of gradients and parameters instead of tensors of their own.
  bool gradient_buffer = false, parameter_buffer = false;
  BufferRules buffers;
  OptimizerLayout optimizer;
};

// Errors: a precision or optimizer whose rules are not built yet.
[[nodiscard]] Result<Layout> layout_of(const facts::Job& job, const AdapterHabits& habits = {},
                                       const Fp8& fp8 = {});

// A LAMB that makes new tensors of the parameter, both averages and the update, parameter by
// parameter, and then lets the old ones go (JITLamb of NVIDIA's Transformer-XL); nothing else.
void make_functional(const facts::OptimizerKeys& keys, OptimizerLayout& optimizer);

// Foreach Adam of PyTorch before 2.1: the second moment's root and, beside it, the denominator.
void hold_denominator(const facts::OptimizerKeys& keys, OptimizerLayout& optimizer);

}  // namespace steelyard::step
