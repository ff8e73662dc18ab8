// A trace is recorded in a program that holds nothing but the shared tensors' slots, and copied
// into each program behind what is there: indices move by as much, names are looked up.
#include "step/workshop.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <utility>

#include "step/split_graph.h"
#include "step/trace_parts.h"

namespace steelyard::step {
namespace {

// What a shared tensor is to a block that reads it; not where its slot lies.
bool alike(const Tensor& a, const Tensor& b) {
  if (!a || !b) return !a && !b;
  const Storage& s = *a.storage;
  const Storage& t = *b.storage;
  return a.numel == b.numel && a.dtype == b.dtype && a.quantized == b.quantized &&
         a.extent == b.extent && a.dense == b.dense && a.requires_grad == b.requires_grad &&
         a.leaf == b.leaf && a.view == b.view && a.output == b.output && s.bytes == t.bytes &&
         s.external == t.external && s.shared == t.shared && (s.slot < 0) == (t.slot < 0);
}

bool alike(const SharedTensors& a, const SharedTensors& b) {
  const auto both = [](const Tensor& x, const Tensor& y) { return alike(x, y); };
  const auto wanted = [](std::int32_t x, std::int32_t y) { return (x < 0) == (y < 0); };
  return a.stream == b.stream && std::ranges::equal(a.tensors, b.tensors, both) &&
         alike(a.labels, b.labels) && alike(a.mask, b.mask) &&
         std::ranges::equal(a.gradients, b.gradients, wanted);
}

// All but the types of single weights, which a question tells one by one.
bool alike(const BlockOptions& a, const BlockOptions& b) {
  // Each member by name: one more in the struct does not compile here.
  const auto& [tape, variants, dtype, recompute, modules, frames, exist, accumulates, train,
               no_grad, types, quantization, left_over, input, keeps_input, keeps_gradient, leaf,
               graded] = a;
  static_cast<void>(types);
  return tape == b.tape && recompute == b.recompute && accumulates == b.accumulates &&
         input == b.input_requires_grad && left_over == b.left_over_share &&
         keeps_input == b.keeps_input && keeps_gradient == b.keeps_gradient &&
         leaf == b.output_made_leaf && frames == b.frames && exist == b.gradients_exist &&
         train == b.weights_train && no_grad == b.no_grad && dtype == b.weight_dtype &&
         quantization == b.quantization && modules == b.recomputed_modules && graded == b.graded &&
         variants == b.variants;
}

// The tensors under slots [0, n) of a program of their own.
struct Apart {
  SharedTensors shared;
  std::vector<StorageRef> outer;  // by slot: whose it stands for

  explicit Apart(const SharedTensors& from) {
    shared.stream = from.stream;
    for (const Tensor& tensor : from.tensors) shared.tensors.push_back(moved(tensor));
    shared.labels = moved(from.labels);
    shared.mask = moved(from.mask);
    for (const std::int32_t gradient : from.gradients) {
      shared.gradients.push_back(gradient < 0 ? gradient : stood_for_by(gradient));
    }
  }

  std::vector<std::int32_t> slots;  // outer ones

 private:
  std::int32_t stood_for_by(std::int32_t slot) {
    slots.push_back(slot);
    outer.emplace_back();
    return static_cast<std::int32_t>(slots.size()) - 1;
  }
  Tensor moved(Tensor tensor) {
    if (!tensor) return tensor;
    const StorageRef whole = tensor.storage;
    for (std::size_t i = 0; i < outer.size(); ++i) {
      if (outer[i] != whole) continue;
      tensor.storage = made_[i];
      return tensor;
    }
    auto own = std::make_shared<Storage>();
    own->bytes = whole->bytes;
    own->external = true;  // outlives the tape, as all shared tensors do
    if (whole->slot >= 0) {
      own->slot = stood_for_by(whole->slot);
      outer.back() = whole;
      made_.resize(outer.size());
      made_.back() = own;
    }
    tensor.storage = std::move(own);
    return tensor;
  }

  std::vector<StorageRef> made_;
};

}  // namespace

std::int32_t Names::index_of(std::int32_t id, const std::string& text,
                             std::vector<std::string>& names) {
  const auto at = static_cast<std::size_t>(id);
  if (at >= by_id_.size()) by_id_.resize(at + 1, -1);
  if (by_id_[at] >= 0) return by_id_[at];
  for (; seen_ < names.size(); ++seen_) {
    known_.try_emplace(names[seen_], static_cast<std::int32_t>(seen_));
  }
  if (const auto known = known_.find(std::string_view(text)); known != known_.end()) {
    return by_id_[at] = known->second;
  }
  const auto index = static_cast<std::int32_t>(names.size());
  known_.emplace(text, index);
  names.push_back(text);
  ++seen_;
  return by_id_[at] = index;
}

class Workshop::Traces {
 public:
  // What a trace depends on.
  struct Question {
    const model::Graph* graph = nullptr;
    const model::Block* block = nullptr;
    const BlockOptions* options = nullptr;
    std::vector<DType> types;  // of the weights
    const SharedTensors* shared = nullptr;
    bool first = false, last = false;
  };
  // A question that outlives its asker, and its answer.
  struct Fragment {
    model::Graph graph;  // without its segments: a block's operators read no other block
    model::Block block;
    BlockOptions options;
    std::vector<DType> types;
    SharedTensors before;
    bool first = false, last = false;

    bool fits = false;  // false: what it hands on cannot be copied; it is traced anew
    Program program;
    std::vector<std::int32_t> names;  // by the program's index: the workshop's number
    std::int32_t outer = 0;           // slots that stand for others
    SharedTensors after;
    BlockTrace trace, lean;  // lean: without what is only allocated and freed
  };
  using Known = std::shared_ptr<const Fragment>;

  [[nodiscard]] static std::size_t hash_of(const Question& question) {
    std::size_t hash = std::hash<std::string>{}(question.block->name);
    const auto mix = [&hash](std::int64_t value) {
      hash = hash * 0x9E3779B97F4A7C15U + static_cast<std::size_t>(value) + (hash >> 29U);
    };
    const BlockOptions& options = *question.options;
    mix(question.graph->batch);
    mix(question.graph->sequence);
    mix(options.tape.tensor.ranks);
    mix(options.tape.context.ranks);
    mix(options.tape.expert.ranks);
    mix(static_cast<std::int64_t>(options.recompute));
    mix(static_cast<std::int64_t>(options.weight_dtype));
    mix(static_cast<std::int64_t>(options.tape.arithmetic.compute));
    mix((options.accumulates ? 1 : 0) + (options.input_requires_grad ? 2 : 0) +
        (question.first ? 4 : 0) + (question.last ? 8 : 0) + (options.gradients_exist ? 16 : 0) +
        (options.tape.offloads_saved ? 32 : 0));
    mix(std::ssize(question.block->operators));
    for (const model::Operator& op : question.block->operators) {
      mix(static_cast<std::int64_t>(op.kind));
    }
    return hash;
  }

  [[nodiscard]] static bool answers(const Fragment& known, const Question& question) {
    return known.first == question.first && known.last == question.last &&
           known.types == question.types && alike(known.options, *question.options) &&
           alike(known.before, *question.shared) &&
           alike_but_segments(known.graph, *question.graph) && known.block == *question.block;
  }

  [[nodiscard]] Known find(std::size_t hash, const Question& question) const {
    const std::shared_lock lock(mutex_);
    const auto [begin, end] = fragments_.equal_range(hash);
    for (auto at = begin; at != end; ++at) {
      if (answers(*at->second, question)) return at->second;
    }
    return {};
  }
  // Numbers of names, for as long as the workshop stands.
  [[nodiscard]] std::vector<std::int32_t> numbers_of(const std::vector<std::string>& names) {
    const std::unique_lock lock(mutex_);
    std::vector<std::int32_t> numbers;
    numbers.reserve(names.size());
    for (const std::string& name : names) {
      numbers.push_back(numbers_.try_emplace(name, std::ssize(numbers_)).first->second);
    }
    return numbers;
  }
  void add(std::size_t hash, Known fragment) {
    const std::unique_lock lock(mutex_);
    if (fragments_.size() >= kMost) fragments_.clear();
    fragments_.emplace(hash, std::move(fragment));
  }

 private:
  static constexpr std::size_t kMost = 20'000;  // some 30 KiB each

  mutable std::shared_mutex mutex_;
  std::unordered_multimap<std::size_t, Known> fragments_;
  std::unordered_map<std::string, std::int32_t> numbers_;
};

namespace {

// What is only allocated and freed takes no time.
void leave_out_memory(std::vector<Event>& events) {
  std::erase_if(events, [](const Event& event) {
    return event.kind == EventKind::allocate || event.kind == EventKind::free;
  });
}

BlockTrace lean(BlockTrace trace) {
  leave_out_memory(trace.forward);
  leave_out_memory(trace.after_forward);
  leave_out_memory(trace.backward);
  leave_out_memory(trace.after_backward);
  trace.left_over.clear();
  return trace;
}

// Nothing of it refers to the tape that is gone.
bool can_be_copied(const SharedTensors& after) {
  return std::ranges::all_of(after.tensors, [](const Tensor& tensor) {
    return !tensor || (tensor.node == nullptr && tensor.part == nullptr &&
                       tensor.storage->external && !tensor.storage->pending);
  });
}

bool same(const Slot& a, const Slot& b) {
  const auto& [bytes, category, stream, name, managed, outlives, shared, recorded, dtype, extent] =
      a;
  static_cast<void>(name);
  return bytes == b.bytes && category == b.category && stream == b.stream && managed == b.managed &&
         outlives == b.outlives_micro_batch && shared == b.shared && recorded == b.recorded &&
         dtype == b.dtype && extent == b.extent;
}

}  // namespace

namespace {

// Where the parts of a fragment come to lie in a program.
class Copy {
 public:
  Copy(Program& program, Names& names, const Program& from,
       const std::vector<std::int32_t>& numbers, const std::vector<std::int32_t>& outer,
       bool times_only)
      : outer_(outer),
        slots_(std::ssize(program.slots) - std::ssize(outer)),
        gradients_(std::ssize(program.gradients)),
        work_(std::ssize(program.work)),
        communication_(std::ssize(program.communication)) {
    std::vector<std::int32_t> named;
    named.reserve(from.names.size());
    for (std::size_t i = 0; i < from.names.size(); ++i) {
      named.push_back(names.index_of(numbers[i], from.names[i], program.names));
    }
    const auto name_of = [&](std::int32_t index) { return named[static_cast<std::size_t>(index)]; };
    program.slots.insert(program.slots.end(),
                         from.slots.begin() + static_cast<std::ptrdiff_t>(outer.size()),
                         from.slots.end());
    for (std::size_t i = outer.size(); i < from.slots.size() && !times_only; ++i) {
      program.slots[i + static_cast<std::size_t>(slots_)].name = name_of(from.slots[i].name);
    }
    for (const Gradient& gradient : from.gradients) {
      program.gradients.push_back({slot(gradient.fresh), slot(gradient.kept)});
    }
    for (const Work& work : from.work) {
      program.work.push_back(work);
      program.work.back().name = name_of(work.name);
    }
    for (const Communication& sent : from.communication) {
      program.communication.push_back(sent);
      program.communication.back().name = name_of(sent.name);
    }
  }

  [[nodiscard]] std::int32_t slot(std::int32_t index) const {
    if (index < 0) return index;
    if (index < std::ssize(outer_)) return outer_[static_cast<std::size_t>(index)];
    return static_cast<std::int32_t>(index + slots_);
  }
  [[nodiscard]] std::vector<Event> events(const std::vector<Event>& from) const {
    std::vector<Event> to = from;
    for (Event& event : to) {
      switch (event.kind) {
        case EventKind::work: event.index += static_cast<std::int32_t>(work_); break;
        case EventKind::communicate:
          event.index += static_cast<std::int32_t>(communication_);
          break;
        case EventKind::keep_gradient: event.index += static_cast<std::int32_t>(gradients_); break;
        default: event.index = slot(event.index);
      }
    }
    return to;
  }
  [[nodiscard]] BlockTrace trace(const BlockTrace& from) const {
    BlockTrace to;
    to.forward = events(from.forward);
    to.after_forward = events(from.after_forward);
    to.backward = events(from.backward);
    to.after_backward = events(from.after_backward);
    to.end_of_step = events(from.end_of_step);
    to.saved = from.saved;
    to.gradients = from.gradients;
    for (std::int32_t& gradient : to.gradients) gradient = slot(gradient);
    to.left_over = from.left_over;
    for (std::int32_t& held : to.left_over) held = slot(held);
    to.kernels = from.kernels;
    to.offloaded = from.offloaded;
    to.output_requires_grad = from.output_requires_grad;
    return to;
  }
  void hand_on(const SharedTensors& after, SharedTensors& shared) const {
    shared.stream = after.stream;
    shared.tensors.resize(after.tensors.size());
    for (std::size_t i = 0; i < after.tensors.size(); ++i) {
      const Tensor& made = after.tensors[i];
      if (!made || (made.storage->slot >= 0 && made.storage->slot < std::ssize(outer_))) continue;
      shared.tensors[i] = made;
      auto storage = std::make_shared<Storage>();
      storage->external = true;
      storage->slot = slot(made.storage->slot);
      storage->bytes = made.storage->bytes;
      shared.tensors[i].storage = std::move(storage);
    }
    for (const std::int32_t made : after.slots) shared.slots.push_back(slot(made));
    shared.gradients.clear();
    for (const std::int32_t sum : after.gradients) shared.gradients.push_back(slot(sum));
  }

 private:
  const std::vector<std::int32_t>& outer_;
  std::ptrdiff_t slots_, gradients_, work_, communication_;
};

}  // namespace

class Workshop::Shelves {
 public:
  void* of(std::type_index type, Make make) {
    const std::scoped_lock lock(mutex_);
    std::shared_ptr<void>& shelf = all_[type];
    if (!shelf) shelf = make();
    return shelf.get();
  }

 private:
  std::mutex mutex_;
  std::unordered_map<std::type_index, std::shared_ptr<void>> all_;
};

Workshop::Workshop() : traces_(std::make_unique<Traces>()), shelves_(std::make_unique<Shelves>()) {}
Workshop::~Workshop() = default;

void* Workshop::shelf(std::type_index type, Make make) {
  return shelves_->of(type, make);
}

BlockTrace Workshop::trace(Program& program, Names& names, const model::Graph& graph,
                           const model::Block& block, const BlockOptions& options,
                           SharedTensors& shared, bool first, bool last, bool times_only) {
  // A stream that lies in a shared tensor is the tensor itself (trace_parts.cpp, handed_over).
  if (shared.stream.shared >= 0) {
    return trace_block(program, graph, block, options, shared, first, last);
  }
  Traces::Question question{&graph, &block, &options, {}, &shared, first, last};
  for (const model::Weight& weight : block.weights) {
    question.types.push_back(options.weight_type ? options.weight_type(weight)
                                                 : options.weight_dtype);
  }
  const std::size_t hash = Traces::hash_of(question);
  Traces::Known known = traces_->find(hash, question);
  const Apart apart(shared);
  if (!known) {
    auto made = std::make_shared<Traces::Fragment>();
    made->graph = without_segments(graph);
    made->block = block;
    made->options = options;
    made->options.weight_type = nullptr;
    made->types = std::move(question.types);
    made->before = Apart(shared).shared;
    made->first = first;
    made->last = last;
    made->outer = static_cast<std::int32_t>(apart.slots.size());
    for (const std::int32_t slot : apart.slots) {
      made->program.slots.push_back(program.slots[static_cast<std::size_t>(slot)]);
    }
    const std::vector<Slot> before = made->program.slots;
    made->after = apart.shared;
    made->trace = trace_block(made->program, graph, block, options, made->after, first, last);
    made->fits = can_be_copied(made->after) &&
                 std::equal(before.begin(), before.end(), made->program.slots.begin(), same);
    made->names = traces_->numbers_of(made->program.names);
    made->lean = lean(made->trace);
    traces_->add(hash, made);
    known = std::move(made);
  }
  if (!known->fits) return trace_block(program, graph, block, options, shared, first, last);
  const Copy copy(program, names, known->program, known->names, apart.slots, times_only);
  copy.hand_on(known->after, shared);
  return copy.trace(times_only ? known->lean : known->trace);
}

}  // namespace steelyard::step
