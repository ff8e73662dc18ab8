#include "step/trace_parts.h"

#include <algorithm>
#include <memory>
#include <set>
#include <unordered_set>
#include <utility>

namespace steelyard::step {

namespace {

using facts::VramCategory;

struct Listing {
  const Storage* borrowed = nullptr;
  std::unordered_set<const Storage*> seen;
  std::vector<SavedStorage> saved;

  // Of compiled code: what a tensor that backward computes again is computed from.
  void add(const StorageRef& storage) {
    if (!seen.insert(storage.get()).second || storage->weight || storage->discarded) return;
    if (!storage->pending) {
      saved.push_back(
          {storage->bytes, storage->external, storage->cast, storage.get() == borrowed});
      return;
    }
    for (const StorageRef& source : storage->sources) add(source);
  }
};

// Calls visit(storage) for what each node behind the roots saved.
template <class Visit>
void for_each_saved(std::vector<NodeRef> roots, Visit&& visit) {
  std::unordered_set<const Node*> visited;
  std::vector<NodeRef> stack = std::move(roots);
  while (!stack.empty()) {
    const NodeRef node = stack.back();
    stack.pop_back();
    if (!node || !visited.insert(node.get()).second) continue;
    for (const StorageRef& storage : node->saved) visit(storage);
    for (const Edge& edge : node->inputs) stack.push_back(edge.node);
  }
}

}  // namespace

std::vector<Tensor> weights_of(Tape& tape, const model::Block& block, const BlockOptions& options) {
  std::vector<Tensor> weights;
  for (const model::Weight& held : block.weights) {
    const DType dtype = options.weight_type ? options.weight_type(held) : options.weight_dtype;
    Tensor weight = tape.external(model::elements(held.shape), dtype);
    weight.storage->weight = true;
    weight.extent = extent_of(held.shape);
    weight.leaf = static_cast<std::int32_t>(weights.size());
    weight.requires_grad = options.weights_train && held.trains;
    weights.push_back(std::move(weight));
  }
  return weights;
}

Tensor of_batch(Tape& tape, const model::TensorInfo& info) {
  const Arithmetic& arithmetic = tape.arithmetic();
  const DType own = arithmetic.autocast ? arithmetic.ambient : arithmetic.compute;
  const bool ids = info.kind != model::ElementKind::pixels && info.kind != model::ElementKind::real;
  return tape.external(model::elements(info.shape), ids ? DType::int64 : own);
}

Extent extent_of(const model::Shape& shape) {
  Extent extent;
  if (shape.size() > extent.sizes.size()) return {{model::elements(shape)}, 1};
  for (const std::int64_t size : shape) {
    extent.sizes[static_cast<std::size_t>(extent.rank++)] = size;
  }
  return extent;
}

bool is_projection(const model::Block& block, std::size_t index) {
  if (block.operators.back().kind != model::OperatorKind::causal_lm_loss) return false;
  const auto is_linear = [](const model::Operator& op) {
    return op.kind == model::OperatorKind::linear;
  };
  const auto from = block.operators.begin() + static_cast<std::ptrdiff_t>(index);
  return is_linear(*from) && std::none_of(from + 1, block.operators.end(), is_linear);
}

bool reads_attention(const model::Block& block, const model::Operator& op) {
  if (op.inputs.empty() || op.inputs[0].shared) return false;
  return std::any_of(block.operators.begin(), block.operators.end(), [&op](const auto& before) {
    return before.kind == model::OperatorKind::attention &&
           before.outputs[0].index == op.inputs[0].index;
  });
}

std::int32_t kept_gradient(Program& program, std::int32_t fresh) {
  Slot kept = program.slots[static_cast<std::size_t>(fresh)];
  kept.category = VramCategory::gradients;
  kept.outlives_micro_batch = true;
  program.slots.push_back(kept);
  return static_cast<std::int32_t>(program.slots.size()) - 1;
}

Event keeping(Program& program, std::int32_t fresh, std::int32_t kept) {
  program.gradients.push_back({fresh, kept});
  return {EventKind::keep_gradient, static_cast<std::int32_t>(program.gradients.size()) - 1};
}

Event summed(Tape& tape, const SharedTensors& shared, std::int32_t leaf, Tensor gradient) {
  const std::int32_t sum = shared.gradients[static_cast<std::size_t>(leaf - kSharedLeaf)];
  tape.pointwise("add_gradients", 3 * bytes_of(gradient));
  if (gradient.storage.use_count() > 1) return {EventKind::ensure, sum};
  return keeping(tape.program(), tape.disown(gradient), sum);
}

bool any_wants(const std::vector<Tensor>& tensors) {
  return std::any_of(tensors.begin(), tensors.end(),
                     [](const Tensor& tensor) { return tensor && tensor.requires_grad; });
}

std::int64_t kernels_in(const BlockTrace& trace) {
  std::int64_t kernels = 0;
  for (const auto* events : {&trace.forward, &trace.backward}) {
    kernels += std::count_if(events->begin(), events->end(),
                             [](const Event& event) { return event.kind == EventKind::work; });
  }
  return kernels;
}

std::vector<NodeRef> nodes_behind(const Tensor& output, const SharedTensors& shared) {
  std::vector<NodeRef> nodes = {output.node};
  for (const Tensor& tensor : shared.tensors) nodes.push_back(tensor.node);
  return nodes;
}

Tensor sum_beside(Tape& tape, const Tensor& gradient) {
  Tensor sum = tape.adopted(gradient, "add_gradients", VramCategory::temporaries);
  sum.storage->pending = true;
  tape.materialise(sum);
  return sum;
}

std::vector<SavedStorage> saved_storages(std::vector<NodeRef> roots, const Storage* borrowed) {
  Listing listing;
  listing.borrowed = borrowed;
  for_each_saved(std::move(roots), [&](const StorageRef& storage) { listing.add(storage); });
  return std::move(listing.saved);
}

void hold_router_graph(const Tape& tape, const model::Operator& op, const Variants& variants,
                       const std::vector<Tensor>& made, std::vector<Tensor>& held) {
  const bool reentrant = variants.checkpoint == Checkpoint::reentrant;
  if (!variants.router_loss_stays || reentrant || !tape.recomputing()) return;
  if (op.kind != model::OperatorKind::router) return;
  for_each_saved({made.front().node}, [&held](const StorageRef& storage) {
    const bool activation = !storage->weight && !storage->external && !storage->cast;
    if (activation && !storage->discarded && !storage->pending)
      held.emplace_back().storage = storage;
  });
}

void move_behind(std::vector<Event>& events, std::size_t from, std::size_t to, std::size_t behind) {
  const auto at = [&events](std::size_t index) {
    return events.begin() + static_cast<std::ptrdiff_t>(index);
  };
  std::rotate(at(from), at(to), at(behind));
}

void mark_activations(Program& program, const std::vector<Event>& forward) {
  std::unordered_set<std::int32_t> alive;
  for (const Event& event : forward) {
    if (event.kind == EventKind::allocate) alive.insert(event.index);
    if (event.kind == EventKind::free) alive.erase(event.index);
  }
  for (std::int32_t slot : alive) {
    VramCategory& category = program.slots[static_cast<std::size_t>(slot)].category;
    if (category == VramCategory::temporaries) category = VramCategory::activations;
  }
}

Tensor lent(Tape& tape, const Tensor& shared) {
  if (!shared) return {};
  if (shared.storage->slot < 0) return shared;
  Tensor own = shared;
  own.storage = std::make_shared<Storage>();
  own.storage->tape = &tape;
  own.storage->slot = shared.storage->slot;
  own.storage->bytes = shared.storage->bytes;
  own.storage->external = own.storage->shared = true;
  return own;
}

Tensor handed_over(Tape& tape, const SharedTensors& shared, std::int64_t numel) {
  // The residual stream has the parameters' type under autocast (embeddings and norms give it).
  const Arithmetic& arithmetic = tape.arithmetic();
  const DType usual = arithmetic.autocast ? arithmetic.ambient : arithmetic.compute;
  const Handover& stream = shared.stream;
  const DType dtype = stream.dtype.value_or(usual);
  if (!stream.borrowed) return tape.adopted(numel, dtype, "input", VramCategory::activations);
  Tensor input = tape.external(numel, dtype);
  if (stream.shared < 0) return input;
  input.storage = lent(tape, shared.tensors[static_cast<std::size_t>(stream.shared)]).storage;
  return input;
}

std::int32_t made_as(const SharedTensors& shared, const Tensor& output) {
  const auto same = [&output](const Tensor& tensor) {
    return tensor && tensor.storage == output.storage;
  };
  const auto found = std::find_if(shared.tensors.begin(), shared.tensors.end(), same);
  return found == shared.tensors.end()
             ? -1
             : static_cast<std::int32_t>(std::distance(shared.tensors.begin(), found));
}

std::vector<Root> share_made(Tape& tape, SharedTensors& shared) {
  std::vector<Root> roots;
  shared.gradients.resize(shared.tensors.size(), -1);
  for (std::size_t i = 0; i < shared.tensors.size(); ++i) {
    Tensor& tensor = shared.tensors[i];
    if (!tensor || tensor.storage->external) continue;
    if (tensor.requires_grad) {
      Tensor root = tensor;
      root.storage.reset();
      Tensor sum = tape.adopted(tensor, "gradient of all blocks", VramCategory::temporaries);
      tape.program().slots[static_cast<std::size_t>(sum.storage->slot)].shared = true;
      shared.gradients[i] = sum.storage->slot;
      roots.emplace_back(std::move(root), std::move(sum));
      tensor.node = nullptr;
      tensor.leaf = kSharedLeaf + static_cast<std::int32_t>(i);
    }
    const std::int32_t slot = tape.disown(tensor);
    tensor.storage->shared = true;
    tape.program().slots[static_cast<std::size_t>(slot)].shared = true;
    shared.slots.push_back(slot);
    auto outside = std::make_shared<Storage>();
    outside->external = true;
    outside->slot = slot;
    outside->bytes = tensor.storage->bytes;
    tensor.storage = std::move(outside);
  }
  return roots;
}

bool activates(const model::Operator& op, std::int32_t made) {
  return op.kind == model::OperatorKind::gated_activation && !op.fused_gate_up &&
         !op.inputs[0].shared && op.inputs[0].index == made;
}

bool returns_cache(const model::Operator& op, const Variants& variants) {
  const bool of_decoder = op.kind == model::OperatorKind::attention && op.attention.causal;
  return op.attention.returns_cache || (variants.returns_cache && of_decoder);
}

std::vector<std::int32_t> left_over_slots(Program& program, const std::vector<Tensor>& held,
                                          Ratio share) {
  std::set<const Storage*> seen;
  std::vector<std::int32_t> slots;
  for (const Tensor& tensor : held) {
    if (tensor.storage == nullptr || !seen.insert(tensor.storage.get()).second) continue;
    if (tensor.storage->slot < 0) continue;
    Slot slot = program.slots[static_cast<std::size_t>(tensor.storage->slot)];
    slot.category = facts::VramCategory::activations;
    slot.outlives_micro_batch = true;
    slot.bytes = std::max(Bytes(1), slot.bytes * share);
    slots.push_back(static_cast<std::int32_t>(program.slots.size()));
    program.slots.push_back(slot);
  }
  return slots;
}

}  // namespace steelyard::step
