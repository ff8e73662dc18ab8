#include "plan/layer_sums.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "pace/roofline.h"

namespace steelyard::plan {
namespace {

using step::Body;
using step::EventKind;
using step::Phase;
using step::PhaseKind;
using step::Program;

enum class Part { first, layers, last, none };

// Which segments of the graph a body works on, by its name.
class Parts {
 public:
  explicit Parts(const model::Graph& graph) {
    const std::size_t end = graph.segments.size() - static_cast<std::size_t>(graph.tail);
    for (std::size_t s = 0; s < graph.segments.size(); ++s) {
      const model::Segment& segment = graph.segments[s];
      const bool layer = s > 0 && s < end;
      const Part part = s == 0 ? Part::first : layer ? Part::layers : Part::last;
      const auto [known, fresh] = parts_.try_emplace(segment.blocks.front().name, part);
      clear_ = clear_ && (fresh || known->second == part);
      if (!layer) continue;
      clear_ = clear_ && segment.blocks.size() == 1;
      layers += segment.repeat;
      ++kinds;
    }
  }
  [[nodiscard]] bool clear() const { return clear_ && layers > 0; }
  [[nodiscard]] Part of(const Body& body) const {
    const auto known = parts_.find(body.layer);
    return known == parts_.end() ? Part::none : known->second;
  }

  std::int64_t layers = 0, kinds = 0;

 private:
  std::map<std::string, Part, std::less<>> parts_;
  bool clear_ = true;
};

// The least over bodies that together stand for all layers.
template <class Quantity>
class Least {
 public:
  void add(const Body& body, Quantity quantity) {
    count_ += body.repeat;
    least_ = least_ ? std::min(*least_, quantity) : quantity;
  }
  [[nodiscard]] bool covers(std::int64_t layers) const { return count_ == layers; }
  [[nodiscard]] Quantity value() const { return least_.value_or(Quantity()); }

 private:
  std::int64_t count_ = 0;
  std::optional<Quantity> least_;
};

class Reader {
 public:
  Reader(const Program& program, const pace::Prices* prices, std::int64_t ranks, bool late)
      : program_(program), prices_(prices), ranks_(ranks), late_(late) {}

  // As pace/walk.h adds up an iteration, of the collectives that are counted. More of them, or
  // longer ones, never make it shorter. `products_only`: of work nothing else.
  [[nodiscard]] Seconds time_of(const Body& body, PhaseKind phase, bool products_only) const {
    Seconds working, exposed;
    pace::BesideWork sent;
    pace::Beside host;
    const double exchanged = pace::exposed_exchanges(body, program_, *prices_);
    for (const step::Event& event : body.events) {
      const auto index = static_cast<std::size_t>(event.index);
      if (event.kind == EventKind::work) {
        const step::Work& work = program_.work[index];
        const Seconds seconds = prices_->work[index].seconds;
        if (pace::on_the_host(work.kind)) {
          if (!late_ || phase != PhaseKind::backward) host.add(work, phase, seconds);
        } else if (!products_only || work.kind == step::WorkKind::gemm) {
          working += seconds;
        }
      } else if (event.kind == EventKind::communicate && counts(body, phase, index)) {
        const Seconds length = prices_->communication[index];
        if (program_.communication[index].overlaps) {
          sent.add(*prices_, index);
        } else {
          const bool beside = pace::beside_shared_experts(event.index, program_, *prices_);
          exposed += length * (beside ? exchanged : 1.0);
        }
      }
    }
    const Seconds busy = working + exposed + sent.added_to(working);
    return busy + host.waits + host.outlasting(busy);
  }
  [[nodiscard]] double flops_of(const Body& body) const {
    double sum = 0.0;
    for (const step::Event& event : body.events) {
      if (event.kind != EventKind::work) continue;
      sum += program_.work[static_cast<std::size_t>(event.index)].flops.value();
    }
    return sum;
  }
  // Copies out of the GPU of what forward saved.
  [[nodiscard]] Bytes offloaded_by(const Body& body) const {
    Bytes sum;
    for (const step::Event& event : body.events) {
      if (event.kind != EventKind::work) continue;
      const step::Work& work = program_.work[static_cast<std::size_t>(event.index)];
      const std::string_view name = program_.names[static_cast<std::size_t>(work.name)];
      if (name == step::kActivationsToHost) sum += work.traffic;
    }
    return sum;
  }
  // What an iteration of the body leaves behind, where none of `bodies` lets go of it. Tensors that
  // it takes over and does not hand on stay too.
  [[nodiscard]] Bytes left_by(const Body& body, const std::vector<const Body*>& bodies,
                              bool of_a_micro_batch) const {
    std::map<std::int32_t, int> slots;  // made and taken over, less freed and handed on
    for (const Body* each : bodies) {
      for (const step::Event& event : each->events) {
        const bool ends = event.kind == EventKind::free || event.kind == EventKind::carry ||
                          event.kind == EventKind::release_shared ||
                          event.kind == EventKind::release_cached;
        if (ends) --slots[event.index];
      }
    }
    Bytes sum;
    for (const step::Event& event : body.events) {
      if (event.kind != EventKind::allocate && event.kind != EventKind::adopt) continue;
      const step::Slot& slot = program_.slots[static_cast<std::size_t>(event.index)];
      const bool counts =
          !slot.managed && (!of_a_micro_batch || (!slot.outlives_micro_batch && !slot.shared));
      if (counts && !slots.contains(event.index)) sum += slot.bytes;
    }
    return sum;
  }
  // Whole gradients that the body itself reduces and lets go of do not stay.
  [[nodiscard]] Bytes kept_by(const Body& body) const {
    std::set<std::int32_t> freed;
    for (const step::Event& event : body.events) {
      if (event.kind == EventKind::free) freed.insert(event.index);
    }
    Bytes sum;
    for (const step::Event& event : body.events) {
      if (event.kind != EventKind::keep_gradient) continue;
      const auto kept = program_.gradients[static_cast<std::size_t>(event.index)].kept;
      if (freed.contains(kept)) continue;
      sum += program_.slots[static_cast<std::size_t>(kept)].bytes;
    }
    return sum;
  }

 private:
  // What crosses borders and what is gathered ahead depends on more than the body.
  [[nodiscard]] bool counts(const Body& body, PhaseKind phase, std::size_t index) const {
    const step::Communication& sent = program_.communication[index];
    const bool reduces = sent.overlaps || sent.kind == step::Collective::reduce_scatter;
    if (late_ && phase == PhaseKind::backward && reduces) return false;
    return sent.ranks <= ranks_ && !pace::crosses_border(body, sent) &&
           !pace::gathered_ahead(phase, sent, *prices_);
  }

  const Program& program_;
  const pace::Prices* prices_;
  std::int64_t ranks_;
  bool late_;
};

std::vector<const Body*> bodies_of(const std::vector<step::Pass>& passes) {
  std::vector<const Body*> bodies;
  for (const step::Pass& pass : passes) {
    for (const Phase& phase : pass.phases) {
      for (const Body& body : phase.bodies) bodies.push_back(&body);
    }
  }
  return bodies;
}

// Of setup and of the optimizer's first step, what the layers' bodies leave behind. Bodies of one
// kind of tensor stand one behind the other, each for all layers; a part that does not cover them
// is not counted.
Bytes held_by_layers(const Program& program, const Parts& parts, const Reader& reader) {
  Bytes sum;
  std::vector<const Body*> all = bodies_of(program.setup);
  const std::vector<const Body*> first = bodies_of(program.first_optimizer);
  all.insert(all.end(), first.begin(), first.end());
  for (const auto* passes : {&program.setup, &program.first_optimizer}) {
    for (const step::Pass& pass : *passes) {
      for (const Phase& phase : pass.phases) {
        Least<Bytes> least;
        for (const Body& body : phase.bodies) {
          if (parts.of(body) == Part::layers) least.add(body, reader.left_by(body, all, false));
        }
        if (least.covers(parts.layers)) sum += least.value();
      }
    }
  }
  return sum;
}

// What every replica has of a layer, and of the first end, goes through collectives of more ranks
// than split it.
struct Reduced {
  Bytes layer, first;
};
Reduced reduced(const Program& program, const Parts& parts, std::int64_t ranks) {
  for (const step::Pass& pass : program.step) {
    for (const Phase& phase : pass.phases) {
      if (phase.kind != PhaseKind::backward) continue;
      Least<Bytes> least;
      Bytes first;
      for (const Body& body : phase.bodies) {
        Bytes sum;
        for (const step::Event& event : body.events) {
          if (event.kind != EventKind::communicate) continue;
          const auto& sent = program.communication[static_cast<std::size_t>(event.index)];
          if (sent.ranks > ranks) sum += sent.payload;
        }
        const Part part = parts.of(body);
        if (part == Part::layers && sum > Bytes()) least.add(body, sum);
        if (part == Part::first) first += sum;
      }
      if (least.covers(parts.layers)) return {least.value(), first};
    }
  }
  return {};
}

// What setup and the optimizer's first step leave of the first end.
Bytes held_by_first(const Program& program, const Parts& parts, const Reader& reader) {
  std::vector<const Body*> all = bodies_of(program.setup);
  const std::vector<const Body*> optimizer = bodies_of(program.first_optimizer);
  all.insert(all.end(), optimizer.begin(), optimizer.end());
  Bytes sum;
  for (const Body* body : all) {
    if (parts.of(*body) == Part::first) sum += reader.left_by(*body, all, false) * body->repeat;
  }
  return sum;
}

// Of the narrowest buffer of that category, which no layer has for itself; 0: there is none.
std::int64_t width_of_buffers(const Program& program, const Parts& parts,
                              facts::VramCategory category) {
  std::int64_t width = 0;
  for (const Body* body : bodies_of(program.setup)) {
    if (parts.of(*body) != Part::none) continue;
    for (const step::Event& event : body->events) {
      if (event.kind != EventKind::allocate) continue;
      const step::Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
      if (slot.category != category || !slot.dtype) continue;
      const std::int64_t own = facts::bytes_of(*slot.dtype);
      width = width == 0 ? own : std::min(width, own);
    }
  }
  return width;
}

// Of one phase.
struct PhaseSums {
  bool known = false;
  Seconds layer, first, last, last_products;
  Bytes left;       // of a layer: what forward saves, what backward keeps
  Bytes offloaded;  // of what it saves
  double flops = 0.0, first_flops = 0.0, last_flops = 0.0;
};

PhaseSums read(const Phase& phase, const Parts& parts, const Reader& reader, bool timed) {
  PhaseSums sums;
  std::vector<const Body*> bodies;
  for (const Body& body : phase.bodies) bodies.push_back(&body);
  const bool forward = phase.kind == PhaseKind::forward;
  Least<Seconds> seconds;
  Least<Bytes> bytes, offloaded;
  Least<double> flops;
  for (const Body& body : phase.bodies) {
    const Part part = parts.of(body);
    const Seconds time = timed ? reader.time_of(body, phase.kind, false) : Seconds();
    const double times = static_cast<double>(body.repeat);
    const double computes = reader.flops_of(body);
    if (part == Part::first) {
      sums.first += time * times;
      sums.first_flops += computes * times;
    } else if (part == Part::last) {
      sums.last += time * times;
      if (timed) sums.last_products += reader.time_of(body, phase.kind, true) * times;
      sums.last_flops += computes * times;
    } else if (part == Part::layers && computes > 0.0) {  // others only let go of tensors
      seconds.add(body, time);
      flops.add(body, computes);
      offloaded.add(body, reader.offloaded_by(body));
      bytes.add(body, forward ? reader.left_by(body, bodies, true) : reader.kept_by(body));
    }
  }
  sums.known = seconds.covers(parts.layers);
  sums.layer = seconds.value();
  sums.flops = flops.value();
  sums.left = bytes.value();
  sums.offloaded = offloaded.value();
  return sums;
}

// The first and the last pass of a micro-batch may do more or less than those between.
std::optional<PhaseSums> least_of(const Program& program, PhaseKind kind, const Parts& parts,
                                  const Reader& reader, bool timed) {
  std::optional<PhaseSums> least;
  for (const step::Pass& pass : program.step) {
    for (const Phase& phase : pass.phases) {
      if (phase.kind != kind) continue;
      const PhaseSums sums = read(phase, parts, reader, timed);
      if (!least) least = sums;
      least->known = least->known && sums.known;
      least->layer = std::min(least->layer, sums.layer);
      least->first = std::min(least->first, sums.first);
      least->last = std::min(least->last, sums.last);
      least->last_products = std::min(least->last_products, sums.last_products);
      least->left = std::min(least->left, sums.left);
      least->offloaded = std::min(least->offloaded, sums.offloaded);
    }
  }
  return least;
}

bool has_tied(const model::Graph& graph) {
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) {
        if (!weight.tied_to.empty()) return true;
      }
    }
  }
  return false;
}

}  // namespace

LayerSums layer_sums(const model::Graph& graph, const Program& program, const pace::Prices* prices,
                     std::int64_t ranks, bool late) {
  LayerSums sums;
  const Parts parts(graph);
  if (!parts.clear() || program.chunks > 1) return sums;
  const Reader reader(program, prices, ranks, late);
  const bool timed = prices != nullptr;
  const auto forward = least_of(program, PhaseKind::forward, parts, reader, timed);
  const auto backward = least_of(program, PhaseKind::backward, parts, reader, timed);
  if (!forward || !backward) return sums;
  sums.known = forward->known && backward->known;
  sums.alike = parts.kinds == 1;
  sums.tied = has_tied(graph);
  sums.layers = parts.layers;
  sums.passes = forward->layer + backward->layer;
  sums.first = forward->first + backward->first;
  sums.last = forward->last + backward->last;
  sums.last_products = forward->last_products + backward->last_products;
  sums.flops = forward->flops + backward->flops;
  sums.first_flops = forward->first_flops + backward->first_flops;
  sums.last_flops = forward->last_flops + backward->last_flops;
  sums.saved = forward->left;
  sums.offloaded = forward->offloaded;
  sums.gradients = backward->left;
  sums.held = held_by_layers(program, parts, reader);
  sums.first_held = held_by_first(program, parts, reader);
  const Reduced whole = reduced(program, parts, ranks);
  sums.reduced = whole.layer;
  sums.first_reduced = whole.first;
  sums.parameter_width = width_of_buffers(program, parts, facts::VramCategory::parameters);
  sums.gradient_width = width_of_buffers(program, parts, facts::VramCategory::gradients);
  return sums;
}

}  // namespace steelyard::plan
