// Forward and backward of one micro-batch, with what the sharding gathers, reduces and frees.
//
// FSDP (torch/distributed/fsdp/_fully_shard, read in PyTorch 2.6): a unit's parameters arrive in
// one flat buffer and are copied out into tensors of their own; in backward the next unit's buffer
// is gathered while this one computes; a unit's gradients are copied into a flat buffer of the
// reduction type, reduced and scattered. ZeRO-3 gathers and reduces the same bytes through its own
// buckets.
#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "step/assembler.h"
#include "step/recomputed_modules.h"
#include "step/weight_storage.h"

namespace steelyard::step {

namespace {

using facts::VramCategory;

void append(std::vector<Event>& to, const std::vector<Event>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

// Weights of the block whose storage a later one uses as well: that one's backward pass comes
// first.
std::set<std::string, std::less<>> graded_before(const model::Graph& graph,
                                                 const model::Block& block) {
  std::set<std::string, std::less<>> owners, graded;
  bool later = false;
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& other : segment.blocks) {
      for (const model::Weight& weight : other.weights) {
        if (later && !weight.tied_to.empty()) owners.insert(weight.tied_to);
      }
      later |= &other == &block;
    }
  }
  for (const model::Weight& weight : block.weights) {
    if (owners.contains(weight.tied_to.empty() ? weight.name : weight.tied_to)) {
      graded.insert(weight.name);
    }
  }
  return graded;
}

// What model.get_input_embeddings() belongs to: the first block that embeds tokens, else the first.
const model::Block* embedding_block(const model::Graph& graph) {
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Operator& op : block.operators) {
        if (op.kind == model::OperatorKind::embedding) return &block;
      }
    }
  }
  return &graph.segments.front().blocks.front();
}

bool reads_mask(const model::Block& block) {
  return std::any_of(block.operators.begin(), block.operators.end(), [](const auto& op) {
    return op.kind == model::OperatorKind::attention && op.attention.causal &&
           !op.attention.learned_bias;
  });
}

bool exchanges_tables(const model::Block& block) {
  return std::ranges::any_of(block.operators, [](const model::Operator& op) {
    return op.kind == model::OperatorKind::exchange_tables;
  });
}

// Embedding, head and loss, which are no layers. The head before a loss that its caller computes
// is played as it is written: its product is the same compiled or not.
bool compiles_end(const Variants& variants, const model::Block& block) {
  const bool has_loss = std::ranges::any_of(
      block.operators, [](const model::Operator& op) { return model::is_loss(op.kind); });
  if (variants.compiles == CompileScope::model) return !has_loss;
  return variants.compiles == CompileScope::everything ||
         (variants.compiles == CompileScope::layers_and_chunked_loss &&
          variants.head == HeadLoss::chunked);
}

}  // namespace

BlockOptions Assembler::block_options() const {
  BlockOptions options;
  options.tape.arithmetic = layout_.arithmetic;
  options.tape.mean_saves_input = variants_.mean_saves_input;
  options.tape.softmax_saves_input = variants_.softmax_saves_input;
  options.tape.product_saves_both = variants_.product_saves_both;
  options.tape.relu_saves_input = variants_.relu_saves_input;
  options.tape.tensor = groups_.tensor;
  options.tape.context = groups_.context;
  options.tape.context_code = variants_.context;
  options.tape.expert = groups_.expert;
  options.tape.expert_tensor = groups_.expert_tensor;
  options.tape.expert_imbalance = job_.parallel.expert_imbalance;
  options.tape.expert_capacity = job_.parallel.expert_capacity;
  options.tape.async_tensor = job_.parallel.async_tensor;
  options.tape.kernel_temporaries = !variants_.fake_tensors;
  options.tape.sum_in_place = !variants_.fake_tensors;
  options.tape.composite_silu_backward = variants_.composite_silu_backward;
  options.frames = variants_.frames;
  options.variants = variants_;
  options.weight_dtype = layout_.used;
  options.weight_type = [this](const model::Weight& weight) { return used_type(layout_, weight); };
  options.quantization = {layout_.quantization,          layout_.nested_statistics,
                          habits_.keeps_quantized_input, habits_.tensor_subclass,
                          habits_.unpacks_by_operators,  habits_.quantizes_from_half};
  if (!job_.train.packed && job_.train.sequence_length_mean && job_.train.sequence_length) {
    options.left_over_share = Ratio(std::min(
        1.0, *job_.train.sequence_length_mean / static_cast<double>(*job_.train.sequence_length)));
  }
  const bool whole_gradients = !layout_.gathers && layout_.gradient_shards == 1;
  options.gradients_exist =
      !profile_.gradients_set_to_none && whole_gradients && !layout_.on_host.gradients;
  options.accumulates = micro_batches() > 1 && whole_gradients;
  if (job_.megatron && job_.megatron->gradient_buffer && job_.megatron->fused_weight_gradients) {
    options.tape.accumulates_into = job_.megatron->main_gradients;
  }
  return options;
}

// Layers by what is recomputed of them; embedding and head stand for themselves.
std::vector<LayerRun> Assembler::layer_runs(const model::Segment& segment, bool last) {
  const model::Block& front = segment.blocks.front();
  if (front.input.index >= 0 && is_layer(front) && !last) return recompute_plan_.runs_of(segment);
  LayerRun run{segment.repeat, {}};
  for (const model::Block& block : segment.blocks) run.parts.push_back({&block});
  return {run};
}

Assembler::Chain Assembler::trace_run(const LayerRun& run, BlockOptions& options, bool last,
                                      bool before_head) {
  Chain chain;
  chain.repeat = run.repeat;
  for (const LayerPart& part : run.parts) {
    const model::Block& block = *part.block;
    const bool first = block.input.index < 0;
    Unit unit;
    unit.block = &block;
    unit.layer = !first && !last && is_layer(block);
    unit.wrapped = unit.layer || wraps_end(block);
    options.graded = graded_before(graph_, block);
    options.no_grad = asks_only_;
    options.recompute = asks_only_ ? Recompute::none : part.recompute;
    const std::vector<std::string> modules =
        unit.layer ? checkpointed_layer_modules(profile_, job_.train.recompute)
                   : std::vector<std::string>();
    if (!modules.empty()) options.recompute = Recompute::none;
    options.tape.arithmetic.fp8 = has_fp8(block) ? layout_.arithmetic.fp8 : Fp8();
    options.tape.compiled = job_.train.compile && (unit.layer || compiles_end(variants_, block));
    options.output_made_leaf =
        !asks_only_ && &block == embedding_block(graph_) && inputs_require_grad(job_, habits_);
    options.recomputed_modules.clear();
    if (unit.layer && job_.megatron && !asks_only_) {
      options.recomputed_modules = job_.megatron->recomputed_modules;
    } else if (graph_.segments.size() == 1 && !asks_only_) {
      options.recomputed_modules = checkpointed_modules(profile_, job_.train.recompute);
    } else if (!asks_only_) {
      options.recomputed_modules = modules;
    }
    options.keeps_input = unit.layer && !asks_only_ && keeps_boundaries(job_, habits_, block);
    options.keeps_gradient = options.keeps_input && !before_head;
    options.tape.offloads_saved = unit.layer && job_.offload.activations == facts::OffloadTo::cpu;
    // Other blocks talk to no replicas, so theirs may be of jobs with any number of them.
    options.tape.replicas = exchanges_tables(block) ? groups_.replicas : Group();
    unit.trace = workshop_ != nullptr
                     ? workshop_->trace(program_, traced_names_, graph_, block, options, shared_,
                                        first, last, times_only_)
                     : trace_block(program_, graph_, block, options, shared_, first, last);
    grade_the_rest(unit);
    step_in_backward(unit);
    if (block.output.index >= 0) options.input_requires_grad = unit.trace.output_requires_grad;
    unit.trained = trained_elements(block);
    for (const model::Weight& weight : block.weights) {
      if (weight.tied_to.empty()) unit.parameters += gathered_bytes(layout_, weight);
    }
    make_sharding_slots(unit);
    unit.recomputed = options.recompute != Recompute::none || !options.recomputed_modules.empty();
    make_viewed_slot(unit);
    chain.units.push_back(std::move(unit));
  }
  return chain;
}

// Layers are alike when they receive alike; a first one that does not stands for itself.
void Assembler::add_chains(Chunk& chunk, const LayerRun& run, BlockOptions& options, bool last,
                           bool before_head) {
  const bool own_last = before_head && keeps_boundaries(job_, habits_, *run.parts.front().block);
  for (std::int64_t rest = run.repeat; rest > 0; rest -= chunk.chains.back().repeat) {
    const Handover before = shared_.stream;
    const bool graded = options.input_requires_grad;
    Chain chain = trace_run(run, options, last, before_head && rest == 1);
    const bool known = before.dtype.has_value();  // a stage's input: as every layer's
    const bool alike =
        last || !known || (before == shared_.stream && graded == options.input_requires_grad);
    // The head's gradient is not kept: the last layer stands for itself too.
    const std::int64_t many = own_last && rest > 1 ? rest - 1 : rest;
    chain.repeat = alike ? many : 1;
    chunk.chains.push_back(std::move(chain));
  }
}

void Assembler::trace_chunks() {
  BlockOptions options = block_options();
  const std::size_t segments = graph_.segments.size();
  for (std::size_t c = 0; c < stage_.chunk_begins.size(); ++c) {
    const std::size_t begin = stage_.chunk_begins[c];
    const bool final_chunk = c + 1 == stage_.chunk_begins.size();
    const std::size_t end = final_chunk ? segments : stage_.chunk_begins[c + 1];
    Chunk chunk;
    options.input_requires_grad = c > 0 || stage_.index > 0;  // from another stage's layers
    shared_.tensors.clear();                                  // every chunk makes its own
    shared_.stream = {};
    chunk.has_loss = final_chunk && stage_.has_loss;
    make_mask(chunk);
    recompute_plan_.start_chunk();
    for (std::size_t s = begin; s < end; ++s) {
      const bool last = chunk.has_loss && s + 1 == end;
      const std::vector<LayerRun> runs = layer_runs(graph_.segments[s], last);
      for (const LayerRun& run : runs) {
        const bool before_head = chunk.has_loss && s + 2 == end && &run == &runs.back();
        add_chains(chunk, run, options, last, before_head);
      }
    }
    settle_shared(chunk);
    step_tied_in_backward(chunk);
    send_activations_to_host(chunk);
    make_live_window(chunk);
    find_borders(chunk);
    chunks_.push_back(std::move(chunk));
  }
}

namespace {

// Trained elements of experts, where ranks hold different ones.
std::int64_t expert_elements(const model::Block& block) {
  std::int64_t sum = 0;
  for (const model::Weight& weight : block.weights) {
    const bool counts = weight.expert && weight.trains && !weight.placed && weight.tied_to.empty();
    if (counts) sum = checked_add(sum, model::elements(weight.shape));
  }
  return sum;
}

}  // namespace

// DDP and ZeRO-1/2: the layer's gradients go into buckets that are reduced beside the computation.
void Assembler::reduce_replicated(std::vector<Event>& events, Unit& unit, bool reduces) {
  const Bytes whole = bytes_of(unit.trained, layout_.reduce);
  if (layout_.gradient_shards > 1) {
    communicate(events, Collective::reduce_scatter, whole, layout_.reduces_beside, "reduce_scatter",
                groups_.shards);
    for (std::int32_t gradient : unit.trace.gradients) {
      if (gradient >= 0) free(events, gradient);  // copied into the bucket
    }
    send_gradients_to_host(events, unit);
  } else if (reduces) {
    // The distributed optimizer scatters what it adds up (param_and_grad_buffer.py,
    // start_grad_sync); experts have buffers of their own, over the ranks that hold the same ones.
    const Collective kind =
        layout_.parameter_buffer ? Collective::reduce_scatter : Collective::all_reduce;
    const std::string_view text = layout_.parameter_buffer ? "reduce_scatter" : "all_reduce";
    const std::int64_t apart = expert_elements(*unit.block);
    communicate(events, kind, bytes_of(unit.trained - apart, layout_.reduce),
                layout_.reduces_beside, text, groups_.replicas);
    if (apart > 0) {
      communicate(events, kind, bytes_of(apart, layout_.reduce), layout_.reduces_beside, text,
                  groups_.expert_replicas);
    }
  }
}

void Assembler::add_root(Chunk& chunk, Phase& phase, std::string_view layer,
                         void (Assembler::*what)(std::vector<Event>&, Unit&)) {
  if (!layout_.gathers) return;
  Body body;
  body.layer = layer;
  for (Chain& chain : chunk.chains) {
    for (Unit& unit : chain.units) (this->*what)(body.events, unit);
  }
  phase.bodies.push_back(std::move(body));
}

void Assembler::add_forward(Chunk& chunk, Phase& phase, bool first) {
  add_root(chunk, phase, "root parameters", &Assembler::gather_root);
  bool receiving = chunk.received >= 0;
  bool masked = chunk.mask < 0;
  for (std::size_t at = 0; at < chunk.chains.size(); ++at) {
    Chain& chain = chunk.chains[at];
    slide_forward(chunk, at, phase);
    const bool reads = std::any_of(chain.units.begin(), chain.units.end(),
                                   [](const Unit& unit) { return reads_mask(*unit.block); });
    if (!masked && (reads || &chain == &chunk.chains.back())) {  // behind the embeddings
      add_mask(chunk, phase);
      masked = true;
    }
    if (receiving && chain.units.front().block->input.index >= 0) {
      receive(phase, chunk.received, chunk.received_bytes, "receive activations");
      receiving = false;
      if (first && chunk.held_input >= 0) {
        free(phase.bodies.back().events, chunk.held_input);
        free(phase.bodies.back().events, chunk.held_gradient);
      }
    }
    Body body;
    body.layer = chain.units.front().block->name;
    body.repeat = chain.repeat;
    for (Unit& unit : chain.units) {
      open_layer(body.events, unit, false, false);
      fetch_rows(body.events, unit);
      append(body.events, unit.trace.forward);
      hold_viewed(body.events, unit, false);
      close_layer(body.events, unit, false, false);
    }
    phase.bodies.push_back(std::move(body));
  }
  if (chunk.sent >= 0) send_output(chunk, phase);
  if (reshards_root()) add_root(chunk, phase, "root parameters", &Assembler::release_root);
  end_forward(chunk, phase);
}

// Autocast ends: cached casts of weights that no node saved die now.
void Assembler::end_forward(Chunk& chunk, Phase& phase) {
  for (Chain& chain : chunk.chains) {
    Body body;
    body.layer = chain.units.front().block->name;
    body.repeat = chain.repeat;
    for (Unit& unit : chain.units) append(body.events, unit.trace.after_forward);
    if (!body.events.empty()) phase.bodies.push_back(std::move(body));
  }
  if (chunk.unheld.empty()) return;
  Body body;
  body.layer = "end of forward";
  for (std::int32_t index : chunk.unheld) free(body.events, index);
  phase.bodies.push_back(std::move(body));
}

// The hook that gathers the root again hangs on its output: the loss works backwards before it.
void Assembler::append_backward(Chunk& chunk, std::vector<Event>& events, const Unit& unit) {
  const std::vector<Event>& all = unit.trace.backward;
  if (!reshards_root() || &unit != &chunk.chains.back().units.back()) return append(events, all);
  const auto behind = std::ranges::find_if(all, [&](const Event& event) {
    if (event.kind != EventKind::work) return false;
    const Work& work = program_.work[static_cast<std::size_t>(event.index)];
    return !program_.names[static_cast<std::size_t>(work.name)].starts_with("loss");
  });
  events.insert(events.end(), all.begin(), behind);
  for (Chain& chain : chunk.chains) {
    for (Unit& one : chain.units) gather_root(events, one);
  }
  events.insert(events.end(), behind, all.end());
}

void Assembler::add_backward(Chunk& chunk, Phase& phase, const Turn& turn) {
  const bool last = turn.last;
  const bool sums_whole = sums_whole_gradients() && !last;
  const bool reduces = last || (reduces_each_micro_batch() && !sums_whole);
  // Backward passes of a pipeline are not the engine's: it reduces when all of them are done
  // (stage_1_and_2.py, reduce_gradients), and makes the bucket then.
  const bool has_bucket = reduce_bucket_ >= 0 && !layout_.gathers;
  const bool bucket_per_backward = has_bucket && job_.parallel.pipeline == 1;
  if (bucket_per_backward) {
    Body body;
    body.layer = "reduce bucket";
    allocate(body.events, reduce_bucket_);
    phase.bodies.push_back(std::move(body));
  }
  rebuild_output(chunk, phase);
  if (chunk.received_gradient >= 0) {
    receive(phase, chunk.received_gradient, chunk.received_gradient_bytes, "receive gradients");
  }
  for (auto chain = chunk.chains.rbegin(); chain != chunk.chains.rend(); ++chain) {
    Body body;
    slide_backward(chunk, static_cast<std::size_t>(chunk.chains.rend() - chain) - 1, phase);
    body.layer = chain->units.front().block->name;
    body.repeat = chain->repeat;
    body.reversed = true;
    for (auto unit = chain->units.rbegin(); unit != chain->units.rend(); ++unit) {
      const bool works = unit->trace.output_requires_grad;  // frozen, and all before it: no
      if (works) open_layer(body.events, *unit, true, !sums_whole);
      hold_viewed(body.events, *unit, true);
      append_backward(chunk, body.events, *unit);
      if (unit->viewed >= 0) free(body.events, unit->viewed);
      return_rows(body.events, *unit);
      if (works) close_layer(body.events, *unit, true, last);
      if (!layout_.gathers) {
        reduce_replicated(body.events, *unit, reduces);
      } else if (unit->wrapped || reduces_at_once(*unit)) {
        sums_whole ? sum_whole_gradients(body.events, *unit) : reduce_sharded(body.events, *unit);
        if (last) swap_gradients_out(body.events, *unit);
      }
    }
    if (chain == chunk.chains.rbegin() && gradient_partition_ >= 0) {  // with the first reduction
      add_partition(body.events, turn.first);
    }
    phase.bodies.push_back(std::move(body));
    const bool sends = chunk.sent_gradient >= 0 && chain->units.front().block->input.index >= 0;
    const bool lowest = std::next(chain) == chunk.chains.rend() ||
                        std::next(chain)->units.front().block->input.index < 0;
    const bool leaves = !(torch_pipeline() && profile_.pipeline_keeps_gradients);
    if (sends && lowest) send(phase, chunk.sent_gradient, "send gradients", leaves);
  }
  if (bucket_per_backward) join_bucket(phase.bodies.back().events, turn.first);
  if (has_bucket && !bucket_per_backward && last) {
    Body body;
    body.layer = "reduce bucket";
    allocate(body.events, reduce_bucket_);
    join_bucket(body.events, true);
    phase.bodies.push_back(std::move(body));
  }
  if (layout_.gathers) {  // the root's gradients are complete when the embedding's is
    Body body;
    body.layer = "root gradients";
    for (Chain& chain : chunk.chains) {
      for (Unit& unit : chain.units) {
        if (unit.wrapped || reduces_at_once(unit)) continue;
        sums_whole ? sum_whole_gradients(body.events, unit) : reduce_sharded(body.events, unit);
        if (last) swap_gradients_out(body.events, unit);
      }
    }
    phase.bodies.push_back(std::move(body));
  }
  if (!sums_whole) release_saved_shards(chunk, phase);
  end_micro_batch(chunk, phase, last);
}

void Assembler::end_micro_batch(Chunk& chunk, Phase& phase, bool last) {
  // Other micro-batches of a pipeline still need what is gathered.
  if (last || job_.parallel.pipeline == 1) {
    add_root(chunk, phase, "root parameters", &Assembler::release_root);
  }
  close_window(chunk, phase);
  Body body;
  body.layer = "end of micro-batch";
  release_frozen_units(chunk, phase);
  release_held(chunk, phase, &BlockTrace::after_backward);
  add_left_over(chunk, phase, EventKind::allocate);
  const bool returns = torch_pipeline() && profile_.pipeline_returns_logits;
  if (!returns && (!last || !held_to_the_end())) {
    release_held(chunk, phase, &BlockTrace::end_of_step);
  }
  if (chunk.sent_part >= 0) {
    free(body.events, chunk.rebuilt);
    free(body.events, chunk.sent_part);
  } else if (keeps_output(chunk) && !(torch_pipeline() && profile_.pipeline_keeps_outputs)) {
    free(body.events, chunk.sent);
  }
  // A mask of the batch that recomputed layers had as an argument.
  const bool saved = job_.train.recompute.mode != facts::RecomputeMode::none;
  const auto mask = static_cast<std::size_t>(std::max(chunk.mask, 0));
  if (saved && chunk.mask >= 0 && program_.slots[mask].category == VramCategory::batch) {
    free(body.events, chunk.mask);
  }
  if (last && chunk.held_input >= 0) {
    allocate(body.events, chunk.held_input);
    allocate(body.events, chunk.held_gradient);
  }
  phase.bodies.push_back(std::move(body));
}

Phase Assembler::forward_phase(Chunk& chunk, bool first) {
  Phase phase{PhaseKind::forward, {}, static_cast<std::int32_t>(&chunk - chunks_.data())};
  add_forward(chunk, phase, first);
  add_left_over(chunk, phase, EventKind::free);
  return phase;
}

Phase Assembler::backward_phase(Chunk& chunk, const Turn& turn) {
  Phase phase{PhaseKind::backward, {}, static_cast<std::int32_t>(&chunk - chunks_.data())};
  add_backward(chunk, phase, turn);
  for (const std::int32_t index : chunk.deferred) {
    if (turn.first) allocate(phase.bodies.back().events, index);
    if (turn.last) free(phase.bodies.back().events, index);
  }
  return phase;
}

void Assembler::add_micro_batches() {
  trace_chunks();
  Phase before{PhaseKind::setup, {}};  // as a step leaves it
  for (const Chunk& chunk : chunks_) add_left_over(chunk, before, EventKind::allocate);
  if (!before.bodies.empty()) program_.setup.push_back({1, {std::move(before)}});
  add_turns();
}

}  // namespace steelyard::step
