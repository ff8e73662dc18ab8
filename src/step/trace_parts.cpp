#include "step/trace_parts.h"

#include <algorithm>
#include <memory>
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
  const bool picture = info.kind == model::ElementKind::pixels;
  return tape.external(model::elements(info.shape), picture ? own : DType::int64);
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

Tensor sum_beside(Tape& tape, const Tensor& gradient) {
  Tensor sum = tape.adopted(gradient, "add_gradients", VramCategory::temporaries);
  sum.storage->pending = true;
  tape.materialise(sum);
  return sum;
}

std::vector<SavedStorage> saved_storages(const NodeRef& root, const Storage* borrowed) {
  Listing listing;
  listing.borrowed = borrowed;
  std::unordered_set<const Node*> visited;
  std::vector<NodeRef> stack = {root};
  while (!stack.empty()) {
    const NodeRef node = stack.back();
    stack.pop_back();
    if (!node || !visited.insert(node.get()).second) continue;
    for (const StorageRef& storage : node->saved) listing.add(storage);
    for (const Edge& edge : node->inputs) stack.push_back(edge.node);
  }
  return std::move(listing.saved);
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

void share_made(Tape& tape, SharedTensors& shared) {
  for (Tensor& tensor : shared.tensors) {
    if (!tensor || tensor.storage->external) continue;
    const std::int32_t slot = tape.disown(tensor);
    tensor.storage->shared = true;
    tensor.node = nullptr;  // the blocks that read it have tapes of their own
    tensor.requires_grad = false;
    tape.program().slots[static_cast<std::size_t>(slot)].shared = true;
    shared.slots.push_back(slot);
    auto outside = std::make_shared<Storage>();
    outside->external = true;
    outside->slot = slot;
    outside->bytes = tensor.storage->bytes;
    tensor.storage = std::move(outside);
  }
}

}  // namespace steelyard::step
