// What ZeRO-3 holds gathered (deepspeed/runtime/zero/partitioned_param_coordinator.py, read at
// 0.19). Every module that begins lets the next ones be gathered ahead, stage3_prefetch_bucket_size
// elements or one weight at least, unless stage3_max_live_parameters are gathered already: modules
// are many, so that the limit is met soon and kept. The weight that is gathered last is not cut:
// a head comes on top of a full window, while the last layers run. The window is empty of layers
// when the head runs, and what is left of it stays (stage3_max_reuse_distance). Gathered is on a
// stream of its own.
//
// Read from DeepSpeed 0.19 itself on two CPU ranks (tests/step/oracle_zero3_window.py: a Llama
// scaled down 256 times with its limits: 8 B parameters, a head of 0.53e9): 1.52e9 elements in the
// last layers, 1.02e9 at the head, 1.50e9 when the embedding comes back; tied, a head
// of 1.03e9: 2.02e9 and 1.03e9.
#include <algorithm>
#include <initializer_list>

#include "step/assembler.h"
#include "step/weight_storage.h"

namespace steelyard::step {

using facts::VramCategory;

namespace {

// stage3_max_live_parameters, in elements (deepspeed/runtime/zero/config.py).
constexpr std::int64_t kLiveElements = 1'000'000'000;

}  // namespace

// Elements that a unit's modules ask for: of tied weights too, they are gathered again.
std::int64_t Assembler::asked_elements(const Unit& unit) const {
  std::int64_t sum = 0;
  for (const model::Weight& weight : unit.block->weights) {
    sum = checked_add(sum, model::elements(weight.shape));
  }
  return sum;
}

void Assembler::make_live_window(Chunk& chunk) {
  if (!layout_.gathers || !layout_.flat_buckets) return;
  LiveWindow& window = chunk.window;
  std::int64_t front = 0, behind = 0, within = 0;
  bool layers = false;
  for (std::size_t i = 0; i < chunk.chains.size(); ++i) {
    const Chain& chain = chunk.chains[i];
    std::int64_t elements = 0;
    bool layer = false;
    for (const Unit& unit : chain.units) {
      elements = checked_add(elements, checked_multiply(chain.repeat, asked_elements(unit)));
      layer |= unit.layer;
    }
    if (layer) {
      if (!layers) window.first = i;
      window.last = i;
      within = checked_add(within, behind);  // stood between layers
      behind = 0;
      layers = true;
    }
    (layer ? within : layers ? behind : front) += elements;
  }
  const std::int64_t all = model::parameter_count(graph_).value();
  const auto make = [&](std::int64_t elements, std::string_view text) -> std::int32_t {
    if (elements <= 0) return -1;
    return slot(bytes_of(elements, layout_.used), VramCategory::parameters, text,
                Stream::all_gather);
  };
  if (!layers || all <= kLiveElements) {
    window.steady = make(std::min(all, kLiveElements), "gathered parameters");
    window.first = 0;
    window.last = chunk.chains.size();
    return;
  }
  const std::int64_t full = std::min(within, kLiveElements);
  const std::int64_t ahead = std::min(full, behind);
  window.front = make(front, "gathered embedding");
  window.steady = make(full - ahead, "gathered parameters");
  window.ahead = make(ahead, "gathered parameters");
  window.behind = make(behind, "gathered head");
}

void Assembler::change_window(Phase& phase, std::initializer_list<std::int32_t> come,
                              std::initializer_list<std::int32_t> go) {
  Body body;
  body.layer = "ZeRO-3";
  for (const std::int32_t index : go) {
    if (index >= 0) free(body.events, index);
  }
  for (const std::int32_t index : come) {
    if (index >= 0) allocate(body.events, index);
  }
  if (!body.events.empty()) phase.bodies.push_back(std::move(body));
}

// Before chain `at` of a forward pass.
void Assembler::slide_forward(const Chunk& chunk, std::size_t at, Phase& phase) {
  const LiveWindow& window = chunk.window;
  if (at == 0) change_window(phase, {window.front}, {});
  if (at == window.first) change_window(phase, {window.steady, window.ahead}, {window.front});
  if (at == window.last) change_window(phase, {window.behind}, {});
  if (at == window.last + 1) change_window(phase, {}, {window.ahead});
}

// Before chain `at` of a backward pass, whose chains come in reverse.
void Assembler::slide_backward(const Chunk& chunk, std::size_t at, Phase& phase) {
  const LiveWindow& window = chunk.window;
  const bool head = window.last + 1 < chunk.chains.size();
  if (at == window.last && head) change_window(phase, {window.ahead}, {window.behind});
  if (at + 1 == window.first) change_window(phase, {window.front}, {});
}

void Assembler::close_window(const Chunk& chunk, Phase& phase) {
  const LiveWindow& window = chunk.window;
  const bool head = window.last + 1 < chunk.chains.size();
  change_window(phase, {},
                {window.steady, window.ahead, window.first > 0 ? window.front : -1,
                 head ? -1 : window.behind});
}

// F.linear saves the transpose of its weight, a view: the coordinator empties the parameter
// (param.data), the view keeps what was gathered, and backward gathers again. DeepSpeed's own
// linear saves the parameter (runtime/zero/linear.py, LinearFunctionForZeroStage3); it replaces
// F.linear unless memory_efficient_linear, or mem_efficient_linear of zero.Init, says no.
void Assembler::make_viewed_slot(Unit& unit) {
  if (job_.parallel.memory_efficient_linear || !layout_.gathers || !layout_.flat_buckets) return;
  if (!unit.trace.output_requires_grad) return;
  std::int64_t elements = 0;
  for (const model::Operator& op : unit.block->operators) {
    if (op.kind != model::OperatorKind::linear) continue;
    const auto index = static_cast<std::size_t>(op.weights.front());
    elements = checked_add(elements, model::elements(unit.block->weights[index].shape));
  }
  if (elements == 0) return;
  unit.viewed = slot(bytes_of(elements, layout_.used), VramCategory::parameters,
                     "weights held by products", Stream::all_gather);
}

// A recomputed layer's forward pass saves nothing.
void Assembler::hold_viewed(std::vector<Event>& events, const Unit& unit, bool backward) {
  if (unit.viewed >= 0 && unit.recomputed == backward) allocate(events, unit.viewed);
}

// reduce_scatter_coalesced copies the gradients of a bucket into one tensor that is sorted by rank
// (deepspeed/runtime/comm/coalesced_collectives.py), on the stream of the reduction.
void Assembler::copy_by_rank(std::vector<Event>& events) {
  if (bucket_copy_ < 0) {
    const std::int64_t bucket = checked_round(job_.parallel.buckets.reduce);
    bucket_copy_ = slot(bytes_of(std::min(bucket, trained_elements(graph_)), layout_.reduce),
                        VramCategory::communication, "gradients by rank", Stream::reduce);
  }
  allocate(events, bucket_copy_);
  free(events, bucket_copy_);
}

// A bucket takes gradients as they are complete, whosever they are (stage3.py,
// reduce_independent_p_g_buckets_and_remove_grads); those of tied weights with the embedding's.
bool Assembler::reduces_at_once(const Unit& unit) const {
  if (!layout_.flat_buckets) return false;
  return std::ranges::none_of(unit.block->weights, [this](const model::Weight& weight) {
    return !weight.tied_to.empty() || tied_elsewhere(weight.name);
  });
}

}  // namespace steelyard::step
