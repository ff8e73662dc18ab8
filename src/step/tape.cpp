#include "step/tape.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace steelyard::step {

Storage::~Storage() {
  if (!external) tape->emit(EventKind::free, slot);
}

Tape::Tape(Program& program, TapeOptions options) : program_(program), options_(options) {
  for (std::size_t i = 0; i < program.names.size(); ++i) {
    names_.emplace(program.names[i], static_cast<std::int32_t>(i));
  }
}

std::int32_t Tape::intern(std::string_view operation) {
  std::string full =
      module_.empty() ? std::string(operation) : module_ + ": " + std::string(operation);
  auto [entry, inserted] =
      names_.emplace(std::move(full), static_cast<std::int32_t>(program_.names.size()));
  if (inserted) program_.names.push_back(entry->first);
  return entry->second;
}

std::int32_t Tape::new_slot(Bytes bytes, std::string_view operation, facts::VramCategory category) {
  program_.slots.push_back({bytes, category, Stream::compute, intern(operation)});
  return static_cast<std::int32_t>(program_.slots.size()) - 1;
}

Tensor Tape::allocate(std::int64_t numel, DType dtype, std::string_view operation,
                      facts::VramCategory category) {
  Tensor tensor = adopted(numel, dtype, operation, category);
  emit(EventKind::allocate, tensor.storage->slot);
  return tensor;
}

Tensor Tape::adopted(std::int64_t numel, DType dtype, std::string_view operation,
                     facts::VramCategory category) {
  Tensor tensor;
  tensor.storage = std::make_shared<Storage>();
  tensor.storage->tape = this;
  tensor.storage->bytes = bytes_of(numel, dtype);
  tensor.storage->slot = new_slot(tensor.storage->bytes, operation, category);
  tensor.numel = numel;
  tensor.dtype = dtype;
  return tensor;
}

Tensor Tape::external(std::int64_t numel, DType dtype) {
  Tensor tensor;
  tensor.storage = std::make_shared<Storage>();
  tensor.storage->tape = this;
  tensor.storage->external = true;
  tensor.storage->bytes = bytes_of(numel, dtype);
  tensor.numel = numel;
  tensor.dtype = dtype;
  return tensor;
}

Tensor Tape::alias(StorageRef storage, std::int64_t numel, DType dtype) {
  Tensor tensor;
  tensor.storage = std::move(storage);
  tensor.numel = numel;
  tensor.dtype = dtype;
  return tensor;
}

std::int32_t Tape::disown(const Tensor& tensor) {
  tensor.storage->external = true;
  return tensor.storage->slot;
}

bool Tape::tracks(std::initializer_list<const Tensor*> inputs) const {
  if (!grad_enabled_) return false;
  for (const Tensor* input : inputs) {
    if (input->requires_grad) return true;
  }
  return false;
}

Edge Tape::edge_of(const Tensor& tensor) {
  if (!tensor.requires_grad) return {};
  return {tensor.node, tensor.output, tensor.leaf};
}

NodeRef Tape::make_node(std::string_view operation, std::vector<Edge> inputs,
                        std::vector<StorageRef> saved, Node::Backward backward) {
  auto node = std::make_shared<Node>();
  node->sequence = next_sequence_++;
  node->name = intern(std::string(operation) + "_backward");
  node->inputs = std::move(inputs);
  node->saved = std::move(saved);
  node->backward = std::move(backward);
  return node;
}

void Tape::track(Tensor& output, std::string_view operation, std::vector<Edge> inputs,
                 std::vector<StorageRef> saved, Node::Backward backward) {
  if (!saved.empty()) {
    bool saves_result = false;
    for (const StorageRef& storage : saved) saves_result |= storage->slot >= operation_slot_;
    last_saved_ = saves_result ? sink_->size() : operation_start_;
  }
  output.node = make_node(operation, std::move(inputs), std::move(saved), std::move(backward));
  output.output = 0;
  output.requires_grad = true;
  output.leaf = kNoLeaf;
}

void Tape::accumulate(Tensor& into, Tensor gradient) {
  if (!into) {
    into = std::move(gradient);
    return;
  }
  const Bytes traffic = 3 * bytes_of(into);
  if (options_.sum_in_place && into.storage.use_count() == 1) {
    pointwise("add_gradients", traffic);
    return;
  }
  Tensor sum = allocate(into.numel, into.dtype, "add_gradients");
  pointwise("add_gradients", traffic);
  into = std::move(sum);
}

void Tape::run_backward(const Tensor& root, Tensor gradient) {
  struct Pending {
    NodeRef node;
    std::vector<Tensor> gradients;  // by output of the node
  };
  // Later operations first: a node runs when everything that used its outputs has run.
  std::map<std::int64_t, Pending, std::greater<>> pending;
  const auto deliver = [&](const Edge& edge, Tensor arriving) {
    if (edge.leaf != kNoLeaf) {
      leaf_gradient(edge.leaf, std::move(arriving));
      return;
    }
    if (!edge.node) return;
    Pending& at = pending[edge.node->sequence];
    at.node = edge.node;
    const auto output = static_cast<std::size_t>(edge.output);
    if (at.gradients.size() <= output) at.gradients.resize(output + 1);
    accumulate(at.gradients[output], std::move(arriving));
  };
  deliver(edge_of(root), std::move(gradient));

  const std::string module = module_;
  while (!pending.empty()) {
    auto first = pending.extract(pending.begin());
    Pending current = std::move(first.mapped());
    // The name is "module: operation_backward"; what it allocates belongs to the same module.
    const std::string& full = program_.names[static_cast<std::size_t>(current.node->name)];
    const std::size_t colon = full.find(": ");
    module_ = colon == std::string::npos ? std::string() : full.substr(0, colon);

    std::vector<Tensor> results = current.node->backward(*this, current.gradients);
    current.node->saved.clear();
    current.node->backward = nullptr;
    current.gradients.clear();
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (results[i]) deliver(current.node->inputs[i], std::move(results[i]));
    }
  }
  module_ = module;
}

Tensor Tape::cast_weight(const Tensor& weight) {
  if (auto known = casts_.find(weight.leaf); known != casts_.end()) return known->second;
  Tensor cast =
      allocate(weight.numel, arithmetic().compute, "cast_weight", facts::VramCategory::parameters);
  cast.storage->cast = true;
  pointwise("cast_weight", bytes_of(weight) + bytes_of(cast));
  if (tracks({&weight})) {
    const DType dtype = weight.dtype;
    track(cast, "cast_weight", {edge_of(weight)}, {},
          [dtype](Tape& tape, const std::vector<Tensor>& gradients) {
            Tensor full = tape.allocate(gradients[0].numel, dtype, "cast_gradient");
            tape.pointwise("cast_gradient", bytes_of(gradients[0]) + bytes_of(full));
            return std::vector<Tensor>{full};
          });
  }
  // Autocast caches casts of leaves that require a gradient only.
  if (weight.leaf != kNoLeaf && weight.requires_grad) casts_[weight.leaf] = cast;
  return cast;
}

void Tape::stop_early(std::size_t first) {
  std::vector<Event>& events = *sink_;
  const std::size_t stop = std::max(first, last_saved_);
  std::unordered_set<std::int32_t> unborn;  // slots that the shortened recomputation never makes
  std::vector<Event> kept(events.begin(), events.begin() + static_cast<std::ptrdiff_t>(stop));
  for (std::size_t i = stop; i < events.size(); ++i) {
    const Event& event = events[i];
    if (event.kind == EventKind::allocate) unborn.insert(event.index);
    if (event.kind == EventKind::free && !unborn.contains(event.index)) kept.push_back(event);
  }
  events = std::move(kept);
}

void Tape::work(WorkKind kind, std::string_view operation, DType dtype, Flops flops,
                Bytes traffic) {
  Work entry;
  entry.kind = kind;
  entry.dtype = dtype;
  entry.tf32 = arithmetic().tf32 && dtype == DType::fp32;
  entry.backward = in_backward_;
  entry.recomputed = recomputing_;
  entry.flops = flops;
  entry.traffic = traffic;
  entry.name = intern(operation);
  program_.work.push_back(entry);
  emit(EventKind::work, static_cast<std::int32_t>(program_.work.size()) - 1);
}

void Tape::gemm(std::string_view operation, DType dtype, std::int64_t m, std::int64_t n,
                std::int64_t k, std::int64_t batch, Bytes traffic) {
  const double flops = 2.0 * static_cast<double>(m) * static_cast<double>(n) *
                       static_cast<double>(k) * static_cast<double>(batch);
  work(WorkKind::gemm, operation, dtype, Flops(flops), traffic);
  Work& entry = program_.work.back();
  entry.m = m;
  entry.n = n;
  entry.k = k;
  entry.batch = batch;
}

}  // namespace steelyard::step
