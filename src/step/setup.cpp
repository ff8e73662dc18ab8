// What a rank allocates before its first step: batch, parameters, optimizer states, buffers.
#include <algorithm>
#include <utility>

#include "step/assembler.h"
#include "step/ddp_buckets.h"
#include "step/operators.h"
#include "step/weight_storage.h"

namespace steelyard::step {

namespace {

using facts::VramCategory;

// bitsandbytes' paged optimizers page the states of tensors of at least so many elements
// (optim/optimizer.py, get_state_buffer), not the block statistics; the rest comes out of the
// allocator as ever.
constexpr std::int64_t kPagedLeast = 100'000;

std::int64_t states_of(const OptimizerLayout& optimizer, const model::Weight& weight, bool layer) {
  const bool plain = optimizer.matrices_only && !(layer && weight.shape.size() == 2);
  return plain ? 2 : optimizer.states;
}

// Adafactor: a row and a column vector for a matrix, a full tensor otherwise.
Bytes factored_bytes(const model::Weight& weight, DType state) {
  if (weight.shape.size() < 2) return bytes_of(model::elements(weight.shape), state);
  return bytes_of(weight.shape[0] + weight.shape[1], state);
}

}  // namespace

bool is_layer(const model::Block& block) {
  return block.name != "embed" && block.name != "middle" && block.name != "head";
}

void Assembler::add_batch() {
  Body body;
  body.layer = "batch";
  for (const model::TensorInfo& info : graph_.batch_tensors) {
    allocate(body.events, slot(batch_bytes(info), VramCategory::batch, info.name));
  }
  program_.setup.push_back({1, {{PhaseKind::setup, {std::move(body)}}}});
}

// get_global_memory_buffer().get_tensor(..., "mpu"): one buffer as large as its largest use, the
// scores of a layer or the tokens of all ranks that a layer's experts are spread over.
void Assembler::add_global_buffer() {
  const bool scores = variants_.score_buffer && variants_.attention == AttentionKernel::math;
  std::int64_t most = 0;
  for (const model::Segment& segment : graph_.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Operator& op : block.operators) {
        if (scores && op.kind == model::OperatorKind::attention) {
          const std::int64_t rows =
              checked_multiply(graph_.batch * op.attention.heads, graph_.sequence);
          most = std::max(most, checked_multiply(rows, graph_.sequence * op.attention.context));
        }
        if (variants_.token_buffer && op.kind == model::OperatorKind::experts) {
          const auto tokens = static_cast<std::size_t>(op.inputs[0].index);
          const std::int64_t ranks = op.mixture.ranks * op.mixture.feature_ranks;
          if (ranks == 1) continue;
          most =
              std::max(most, checked_multiply(model::elements(block.tensors[tokens].shape), ranks));
        }
      }
    }
  }
  if (most == 0) return;
  Body body;
  body.layer = "global buffer";
  allocate(body.events, slot(bytes_of(most, layout_.arithmetic.compute), VramCategory::temporaries,
                             "global memory buffer"));
  program_.setup.push_back({1, {{PhaseKind::setup, {std::move(body)}}}});
}

// Until PyTorch 1.6 the graph of a scripted function kept what it had captured until the graph was
// freed, when the next forward's loss took its place (pytorch pull request 42994). So one set is
// there for ever, and each forward's own beside it until the model returns: as if the new set, not
// the old one, were let go then.
void Assembler::add_captures() {
  if (!variants_.scripts_outlive_backward) return;
  Phase phase{PhaseKind::setup, {}};
  for (const model::Segment& segment : graph_.segments) {
    Body body;
    body.layer = segment.blocks.front().name;
    body.repeat = segment.repeat;
    for (const model::Block& block : segment.blocks) {
      for (const model::Operator& op : block.operators) {
        if (!is_scripted(variants_, op)) continue;
        const auto result = static_cast<std::size_t>(op.outputs[0].index);
        const Bytes bytes =
            bytes_of(model::elements(block.tensors[result].shape), layout_.arithmetic.compute);
        for (std::int64_t kept = 0; kept < kScriptedGeluKeeps; ++kept) {
          allocate(body.events, slot(bytes, VramCategory::activations, "captured by a script"));
        }
      }
    }
    if (!body.events.empty()) phase.bodies.push_back(std::move(body));
  }
  if (!phase.bodies.empty()) program_.setup.push_back({1, {std::move(phase)}});
}

// Pictures come in the model's own type, everything else as int64.
Bytes Assembler::batch_bytes(const model::TensorInfo& info) const {
  const bool ids = info.kind == model::ElementKind::token_ids;
  const DType own =
      layout_.arithmetic.autocast ? layout_.arithmetic.ambient : layout_.arithmetic.compute;
  return bytes_of(model::elements(info.shape), ids ? DType::int64 : own);
}

// Running statistics and the like: whole on every rank, in the type of the weights.
void Assembler::add_buffers() {
  Phase phase{PhaseKind::setup, {}};
  for (const model::Segment& segment : graph_.segments) {
    Body body;
    body.layer = segment.blocks.front().name;
    body.repeat = segment.repeat;
    for (const model::Block& block : segment.blocks) {
      for (const model::TensorInfo& info : block.buffers) {
        const bool counter = info.kind == model::ElementKind::index;
        const Bytes bytes =
            bytes_of(model::elements(info.shape), counter ? DType::int64 : layout_.parameter);
        allocate(body.events, typed(slot(bytes, VramCategory::parameters, info.name),
                                    counter ? DType::int64 : layout_.parameter, info.shape));
      }
    }
    if (!body.events.empty()) phase.bodies.push_back(std::move(body));
  }
  if (!phase.bodies.empty()) program_.setup.push_back({1, {std::move(phase)}});
}

// One buffer per model chunk.
void Assembler::add_buffer(DType dtype, VramCategory category, std::string_view text,
                           std::optional<bool> short_weights) {
  Body body;
  body.layer = text;
  for (std::size_t c = 0; c < stage_.chunk_begins.size(); ++c) {
    const bool final_chunk = c + 1 == stage_.chunk_begins.size();
    const std::size_t end = final_chunk ? graph_.segments.size() : stage_.chunk_begins[c + 1];
    for (const bool experts : {false, true}) {
      BufferRules rules = layout_.buffers;
      if (experts) rules.ranks = std::min(rules.ranks, layout_.expert_replicas);
      const std::int64_t numel = buffer_elements(
          sizes_in_reverse(graph_, stage_.chunk_begins[c], end, experts, short_weights), rules);
      if (numel == 0) continue;
      allocate(body.events, slot(bytes_of(numel, dtype), category, text));
      program_.slots.back().dtype = dtype;
      program_.slots.back().extent = {{numel}, 1};
    }
  }
  program_.setup.push_back({1, {{PhaseKind::setup, {std::move(body)}}}});
}

void Assembler::add_parameters() {
  if (layout_.parameter_buffer) {
    const bool short_weights = layout_.arithmetic.fp8.short_weights;
    add_buffer(layout_.parameter, VramCategory::parameters, "parameter buffer",
               short_weights ? std::optional<bool>(false) : std::nullopt);
    if (short_weights) {
      add_buffer(DType::fp8, VramCategory::parameters, "fp8 parameter buffer", true);
    }
    return add_buffers();
  }
  if (partitions()) return add_flattened_parameters();
  Phase phase{PhaseKind::setup, {}};
  if (layout_.flat_parameters && layout_.gathers) {
    add_flattened(phase);
  } else {
    build_parameters(phase);
  }
  program_.setup.push_back({1, {std::move(phase)}});
  load_quantized();
  add_buffers();
}

void Assembler::hold_parameters(std::vector<Event>& events, const model::Block& block) {
  for (const model::Weight& weight : block.weights) {
    if (!weight.tied_to.empty()) continue;
    if (quantizes_whole(weight)) {
      build_quantized(events, weight);
      continue;
    }
    for (const Piece& piece : pieces_of(layout_, weight)) {
      if (piece.sharded && layout_.on_host.parameters) continue;
      allocate(events, piece_slot(piece, weight));
      if (!layout_.master && steps(weight)) stepped_[&weight].push_back(events.back().index);
    }
  }
}

void Assembler::add_optimizer_states() {
  if (layout_.on_host.optimizer) return;
  if (flat_states()) return add_partition_states();
  const OptimizerLayout& optimizer = layout_.optimizer;
  // ZeRO-3 makes its states at start-up (stage3.py, initialize_optimizer_states), ZeRO-1/2 did.
  const bool at_start = layout_.flat_buckets;
  Phase phase{at_start ? PhaseKind::setup : PhaseKind::optimizer, {}};
  for (const model::Segment& segment : graph_.segments) {
    Body body;
    body.layer = segment.blocks.front().name;
    body.repeat = segment.repeat;
    const bool layer = is_layer(segment.blocks.front());
    const auto add = [&](Bytes bytes, std::string_view text) {
      allocate(body.events, slot(bytes, VramCategory::optimizer, text));
    };
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        if (!steps(weight)) continue;
        const DType state = state_type(layout_, weight);
        const std::int64_t shard = ceil_divide(
            model::elements(weight.shape), shards_of(layout_, weight, layout_.optimizer_shards));
        const auto like_weight = [&](DType dtype, std::string_view what) {
          add(bytes_of(shard, dtype), what);
          typed(body.events.back().index, dtype, weight.shape);
          stepped_[&weight].push_back(body.events.back().index);
        };
        if (layout_.master) like_weight(layout_.master_type, "master weights");
        if (keeps_master_gradients()) {
          add(bytes_of(shard, layout_.stepped), "gradients of the master weights");
        }
        // capturable and fused steps count on the GPU: one scalar per parameter.
        if (optimizer.fused && !optimizer.in_blocks && optimizer.counts_on_device) {
          add(Bytes(4), "step count");
        }
        for (std::int64_t i = 0; i < states_of(optimizer, weight, layer); ++i) {
          const Bytes statistics = statistics_bytes(optimizer, shard);
          if (optimizer.in_blocks) {
            add(state_bytes(optimizer, shard, state) - statistics, "optimizer state");
          } else {
            like_weight(i > 0 ? optimizer.second_state.value_or(state) : state, "optimizer state");
          }
          program_.slots.back().managed = optimizer.paged && shard >= kPagedLeast;
          if (statistics > Bytes()) add(statistics, "statistics of the optimizer state");
        }
        if (optimizer.factored) {
          add(ceil_divide(factored_bytes(weight, state),
                          shards_of(layout_, weight, layout_.optimizer_shards)),
              "factored second moment");
        }
      }
    }
    phase.bodies.push_back(std::move(body));
  }
  std::vector<Pass>& when = at_start ? program_.setup : program_.first_optimizer;
  when.push_back({1, {std::move(phase)}});
}

void Assembler::add_communication_buffers() {
  if (layout_.data <= 1 && !layout_.flat_buckets) return;
  Body body;
  body.layer = "communication buffers";
  const std::int64_t numel = trained_elements(graph_);
  const auto add = [&](Bytes bytes, VramCategory category, std::string_view text) {
    allocate(body.events, slot(bytes, category, text));
  };
  if (layout_.flat_buckets) {
    // DeepSpeed's ipg buffer: reduce_bucket_size elements of the gradients' type, however small the
    // model. Stage 3 makes it at start-up (stage3.py:731) and with it the gradient partition, which
    // stays (grad_partitions_flat_buffer); stages 1 and 2 make it for each backward pass
    // (stage_1_and_2.py:2497), and the partition when the first bucket is reduced.
    // Below stage 3 there are two with overlap_comm: one is filled while the other is reduced.
    const std::int64_t buckets = job_.parallel.buckets.overlap && !layout_.gathers ? 2 : 1;
    reduce_bucket_ = slot(Bytes(buckets * checked_round(job_.parallel.buckets.reduce)) *
                              facts::bytes_of(layout_.gradient),
                          VramCategory::communication, "reduce bucket");
    if (layout_.gathers) allocate(body.events, reduce_bucket_);
    if (!layout_.on_host.gradients && (layout_.gathers || layout_.gradient_shards > 1)) {
      gradient_partition_ = slot(bytes_of(gradient_partition_elements(numel), layout_.gradient),
                                 VramCategory::gradients, "gradient partition");
      program_.slots.back().outlives_micro_batch = true;
      if (layout_.gathers) allocate(body.events, gradient_partition_);
    }
    add_gradient_relay(body.events);
  } else if (!layout_.gathers && !profile_.ddp_gradient_as_bucket_view) {
    // DDP copies gradients into buckets (torch/csrc/distributed/c10d/reducer.hpp).
    for (const Bytes bucket : ddp_buckets(graph_, layout_.gradient, profile_.ddp_bucket)) {
      add(bucket, VramCategory::communication, "DDP bucket");
    }
  }
  if (job_.megatron && job_.megatron->wide_gradient_copy) {
    add(bytes_of(numel, DType::fp32), VramCategory::gradients, "gradients in fp32");
  }
  if (!body.events.empty()) {
    program_.setup.push_back({1, {{PhaseKind::setup, {std::move(body)}}}});
  }
}

void Assembler::add_existing_gradients() {
  if (layout_.gradient_buffer) {
    if (!layout_.arithmetic.fp8.short_weights) {
      return add_buffer(layout_.gradient, VramCategory::gradients, "gradient buffer", {});
    }
    // A buffer per type of parameter (distributed_data_parallel.py, param_and_grad_dtype).
    for (const bool short_weights : {false, true}) {
      add_buffer(layout_.gradient, VramCategory::gradients, "gradient buffer", short_weights);
    }
    return;
  }
  if (layout_.flat_buckets && (layout_.gathers || layout_.gradient_shards > 1)) {
    return;  // DeepSpeed has a partition instead
  }
  Phase phase{PhaseKind::setup, {}};
  for (const model::Segment& segment : graph_.segments) {
    Body body;
    body.layer = segment.blocks.front().name;
    body.repeat = segment.repeat;
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        if (!steps(weight)) continue;
        const std::int64_t shard = ceil_divide(model::elements(weight.shape),
                                               shards_of(layout_, weight, layout_.gradient_shards));
        const Bytes bytes = bytes_of(shard, gradient_type(layout_, weight));
        allocate(body.events, slot(bytes, VramCategory::gradients, weight.name));
      }
    }
    phase.bodies.push_back(std::move(body));
  }
  program_.setup.push_back({1, {std::move(phase)}});
}

Bytes host_tables(const model::Graph& graph, const Layout& layout) {
  Bytes sum;
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        if (weight.host_elements == 0) continue;
        Bytes held = bytes_of(weight.host_elements, layout.parameter);
        if (steps(weight)) {
          held += states_of(layout.optimizer, weight, is_layer(block)) *
                  state_bytes(layout.optimizer, weight.host_elements, state_type(layout, weight));
          if (layout.master) held += bytes_of(weight.host_elements, layout.master_type);
        }
        sum += held * segment.repeat;
      }
    }
  }
  return sum;
}

StateSizes Assembler::states() const {
  StateSizes states;
  states.parameters = model::parameter_count(graph_);
  states.trainable = Parameters(trained_elements(graph_));
  const OptimizerLayout& optimizer = layout_.optimizer;
  for (const model::Segment& segment : graph_.segments) {
    for (const model::Block& block : segment.blocks) {
      Bytes held;
      for (const model::Weight& weight : block.weights) {
        if (!weight.tied_to.empty()) continue;
        const Bytes own = held_bytes(layout_, weight);
        held += own;
        const std::int64_t elements = model::elements(weight.shape);
        states.weights.push_back({segment.repeat, elements, own, weight.trains});
        if (!weight.trains) continue;
        if (weight.unread) states.trainable += Parameters(segment.repeat * elements);
        if (!steps(weight)) continue;
        const DType state = state_type(layout_, weight);
        Bytes stepped = optimizer.factored ? factored_bytes(weight, state) : Bytes();
        stepped +=
            states_of(optimizer, weight, is_layer(block)) * state_bytes(optimizer, elements, state);
        if (layout_.master) stepped += bytes_of(elements, layout_.master_type);
        states.optimizer_bytes += segment.repeat * stepped;
        states.trainable_bytes += segment.repeat * own;
        states.gradient_bytes +=
            segment.repeat * bytes_of(elements, gradient_type(layout_, weight));
      }
      states.parameter_bytes += segment.repeat * held;
      states.largest_block_bytes = std::max(states.largest_block_bytes, held);
    }
  }
  for (const model::TensorInfo& info : graph_.batch_tensors) {
    states.batch_bytes += batch_bytes(info);
  }
  return states;
}

}  // namespace steelyard::step
