#include "step/tape.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace steelyard::step {

Storage::~Storage() {
  if (shared) {
    tape->emit(EventKind::release_shared, slot);
  } else if (!external && !pending && !discarded) {
    tape->emit(EventKind::free, slot);
  }
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
  if (cacheable_) ++results_;
  if (from_cache() && !cached_.empty()) {
    Tensor kept = alias(std::move(cached_.front()), numel, dtype);
    cached_.pop_front();
    served_.push_back(kept.storage);
    return kept;
  }
  Tensor tensor = adopted(numel, dtype, operation, category);
  tell_extent(tensor);
  if (options_.compiled) {
    tensor.storage->pending = true;
    fresh_.push_back(tensor.storage);
  } else {
    emit(EventKind::allocate, tensor.storage->slot);
  }
  if (cache_ == CacheMode::fill && result_kept_) {
    cached_.push_back(tensor.storage);
    kept_results_.push_back(tensor.storage);
  }
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
  Slot& slot = program_.slots[static_cast<std::size_t>(tensor.storage->slot)];
  slot.dtype = dtype;
  slot.extent = tensor.extent = {{numel}, 1};
  return tensor;
}

// As an operand with as many elements.
void Tape::tell_extent(Tensor& tensor) {
  for (const auto& [numel, extent] : alike_) {
    if (numel != tensor.numel || extent.rank == 0) continue;
    tensor.extent = program_.slots[static_cast<std::size_t>(tensor.storage->slot)].extent = extent;
    return;
  }
}

Tensor Tape::shaped(Tensor tensor, std::initializer_list<std::int64_t> sizes) {
  Extent extent;
  for (const std::int64_t size : sizes) {
    extent.sizes[static_cast<std::size_t>(extent.rank++)] = size;
  }
  return shaped(std::move(tensor), extent);
}

Tensor Tape::shaped(Tensor tensor, const Extent& extent) {
  tensor.extent = extent;
  const std::int32_t slot = tensor.storage->slot;
  if (slot >= 0 && slot >= operation_slot_) {  // not what a cache served
    program_.slots[static_cast<std::size_t>(slot)].extent = tensor.extent;
  }
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
  materialise(tensor);
  tensor.storage->external = true;
  return tensor.storage->slot;
}

void Tape::begin_operation(OperationKind kind, std::initializer_list<const Tensor*> reads) {
  cacheable_ = cache_ != CacheMode::off && keeps_result(kind);
  result_kept_ = cacheable_ && !uncached_.contains(results_);
  if (options_.compiled) {
    settle_rest();
    operation_ = kind;
    reads_.clear();
    const bool fused = kind == OperationKind::pointwise || kind == OperationKind::reduction;
    for (const Tensor* tensor : reads) {
      if (!*tensor) continue;
      if (!fused && !from_cache()) materialise(*tensor);
      reads_.push_back(tensor->storage);
    }
  }
  alike_.clear();
  for (const Tensor* tensor : reads) alike_.push_back({tensor->numel, tensor->extent});
  operation_start_ = sink_->size();
  operation_slot_ = static_cast<std::int32_t>(program_.slots.size());
  served_before_ = served_.size();
}

void Tape::set_cache(CacheMode mode) {
  cache_ = mode;
  products_ = 0;
  results_ = 0;
  cacheable_ = result_kept_ = false;
}

std::set<std::size_t> Tape::unread_results() {
  clear_cache();
  std::set<std::size_t> unread;
  for (std::size_t i = 0; i < kept_results_.size(); ++i) {
    if (kept_results_[i].expired()) unread.insert(i);
  }
  return unread;
}

// torchtitan/parallelisms/parallelize_llama.py, _get_custom_policy (2025-04).
bool Tape::keeps_result(OperationKind kind) {
  if (kind == OperationKind::mm) return ++products_ % 2 == 1;
  return kind == OperationKind::attention || kind == OperationKind::reduce_scatter;
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
  return {tensor.node, tensor.output, tensor.leaf, 0, DType::fp32};
}

Edge Tape::validated_edge_of(const Tensor& tensor) {
  Edge edge = edge_of(tensor);
  edge.numel = tensor.numel;
  edge.dtype = tensor.dtype;
  return edge;
}

NodeRef Tape::make_node(std::string_view operation, std::vector<Edge> inputs,
                        std::vector<StorageRef> saved, Node::Backward backward) {
  auto node = std::make_shared<Node>();
  node->sequence = next_sequence_++;
  node->name = intern(std::string(operation) + "_backward");
  node->inputs = std::move(inputs);
  node->saved = std::move(saved);
  if (options_.offloads_saved && !recomputing_) {
    for (StorageRef& storage : node->saved) storage = offloaded(storage);
  }
  node->backward = std::move(backward);
  if (!node->saved.empty()) node->frame = frame_;
  return node;
}

void Tape::track(Tensor& output, std::string_view operation, std::vector<Edge> inputs,
                 std::vector<StorageRef> saved, Node::Backward backward) {
  if (!saved.empty()) {
    bool saves_result = false;
    for (const StorageRef& storage : saved) {
      const bool own = std::find(served_.begin() + static_cast<std::ptrdiff_t>(served_before_),
                                 served_.end(), storage) != served_.end();
      saves_result |= own || storage->slot >= operation_slot_;
      if (operation_ == OperationKind::other) materialise(storage);
    }
    last_saved_ = saves_result ? sink_->size() : operation_start_;
    const std::size_t surely_ran = saves_result ? served_.size() : served_before_;
    served_.erase(served_.begin(), served_.begin() + static_cast<std::ptrdiff_t>(surely_ran));
    served_before_ -= std::min(served_before_, surely_ran);
  }
  output.node = make_node(operation, std::move(inputs), std::move(saved), std::move(backward));
  output.node->alike = alike_;
  output.output = 0;
  output.requires_grad = true;
  output.leaf = kNoLeaf;
}

void Tape::accumulate(Tensor& into, Tensor gradient) {
  if (!into) {
    into = std::move(gradient);
    return;
  }
  if (options_.compiled) {
    into = compiled_sum(into, gradient);
    return;
  }
  const Bytes traffic = 3 * bytes_of(into);
  if (options_.sum_in_place && into.storage.use_count() == 1 && !into.view) {
    pointwise("add_gradients", traffic);
    return;
  }
  alike_.assign(1, {into.numel, into.extent});
  Tensor sum = allocate(into.numel, into.dtype, "add_gradients");
  sum.dense = into.dense;
  pointwise("add_gradients", traffic);
  into = std::move(sum);
}

// torch/csrc/autograd/engine.cpp, validate_outputs: broadcast operands get the sum, promoted ones
// their own type.
void Tape::validate(const Node& node, std::vector<Tensor>& gradients) {
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    Tensor& gradient = gradients[i];
    const Edge& edge = node.inputs[i];
    if (!gradient || edge.numel == 0) continue;
    if (gradient.numel != edge.numel) {
      Tensor sum = allocate(edge.numel, gradient.dtype, "sum");
      pointwise("sum", bytes_of(gradient) + bytes_of(sum));
      gradient = std::move(sum);
    }
    if (gradient.dtype != edge.dtype) {
      Tensor cast = allocate(gradient.numel, edge.dtype, "to");
      cast.dense = gradient.dense;
      pointwise("to", bytes_of(gradient) + bytes_of(cast));
      gradient = std::move(cast);
    }
  }
}

void Tape::discard(const StorageRef& storage) {
  if (storage->external || storage->pending || storage->discarded) return;
  emit(EventKind::free, storage->slot);
  storage->discarded = true;
}

void Tape::restore(const StorageRef& storage, StorageRef remade) {
  if (storage->discarded) storage->remade = std::move(remade);
}

void Tape::run_backward(const Tensor& root, Tensor gradient) {
  std::vector<std::pair<Tensor, Tensor>> roots;
  roots.emplace_back(root, std::move(gradient));
  gradient = Tensor();
  run_backward(std::move(roots));
}

void Tape::run_backward(std::vector<std::pair<Tensor, Tensor>> roots_and_gradients) {
  struct Pending {
    NodeRef node;
    std::vector<Tensor> gradients;  // by output of the node
  };
  // Later operations first: a node runs when everything that used its outputs has run.
  std::map<std::int64_t, Pending, std::greater<>> pending;
  const auto deliver = [&](const Edge& edge, Tensor arriving) {
    if (edge.leaf != kNoLeaf) {
      materialise(arriving);
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
  for (auto& [root, gradient] : roots_and_gradients) deliver(edge_of(root), std::move(gradient));
  roots_and_gradients.clear();

  first_unpacking_ = sink_->size();
  bool unpacked = false;
  const std::string module = module_;
  while (!pending.empty()) {
    auto first = pending.extract(pending.begin());
    Pending current = std::move(first.mapped());
    // The name is "module: operation_backward"; what it allocates belongs to the same module.
    const std::string& full = program_.names[static_cast<std::size_t>(current.node->name)];
    const std::size_t colon = full.find(": ");
    module_ = colon == std::string::npos ? std::string() : full.substr(0, colon);

    for (const StorageRef& storage : current.node->saved) {
      if (storage->on_host) materialise(storage);
    }
    if (options_.compiled) {
      begin_operation(OperationKind::pointwise);
      reads_ = current.node->saved;
      for (const Tensor& arrived : current.gradients) {
        if (arrived) reads_.push_back(arrived.storage);
      }
    }
    if (!unpacked && !current.node->saved.empty()) {
      first_unpacking_ = sink_->size();
      unpacked = true;
    }
    alike_ = current.node->alike;
    for (const Tensor& arrived : current.gradients) {
      if (arrived) alike_.push_back({arrived.numel, arrived.extent});
    }
    operation_slot_ = static_cast<std::int32_t>(program_.slots.size());
    std::vector<Tensor> results = current.node->backward(*this, current.gradients);
    if (current.node->frame) current.node->saved.clear();
    validate(*current.node, results);
    if (options_.compiled) settle_rest();
    reads_.clear();
    current.node->saved.clear();
    current.node->backward = nullptr;
    current.node->frame.reset();
    current.gradients.clear();
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (results[i]) deliver(current.node->inputs[i], std::move(results[i]));
    }
  }
  module_ = module;
}

Tensor Tape::cast_weight(const Tensor& weight) {
  if (auto known = casts_.find(weight.leaf); known != casts_.end()) return known->second;
  begin_operation(OperationKind::pointwise, {&weight});
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
  cached_.insert(cached_.begin(), served_.begin(), served_.end());
  served_.clear();
}

void Tape::work(WorkKind kind, std::string_view operation, DType dtype, Flops flops,
                Bytes traffic) {
  if (from_cache()) return;  // known already
  if (options_.compiled) {
    settle(kind);
    if (kind == WorkKind::memory && operation_ != OperationKind::other) return;  // fused
  }
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
  const std::size_t before = program_.work.size();
  work(WorkKind::gemm, operation, dtype, Flops(flops), traffic);
  if (program_.work.size() == before) return;
  Work& entry = program_.work.back();
  entry.m = m;
  entry.n = n;
  entry.k = k;
  entry.batch = batch;
}

void Tape::attention(std::string_view operation, DType dtype, Flops flops, Bytes traffic,
                     std::int64_t head_dim) {
  const std::size_t before = program_.work.size();
  work(WorkKind::attention, operation, dtype, flops, traffic);
  if (program_.work.size() > before) program_.work.back().k = head_dim;
}

void Tape::communicate(Collective kind, std::string_view operation, Bytes payload,
                       const Group& group, bool overlaps) {
  if (group.ranks <= 1 || from_cache()) return;
  if (options_.compiled) settle(WorkKind::gemm);  // reads and writes tensors that exist
  Communication entry;
  entry.kind = kind;
  entry.payload = payload;
  entry.ranks = group.ranks;
  entry.ranks_per_node = group.ranks_per_node;
  entry.overlaps = overlaps;
  entry.name = intern(operation);
  program_.communication.push_back(entry);
  emit(EventKind::communicate, static_cast<std::int32_t>(program_.communication.size()) - 1);
}

}  // namespace steelyard::step
