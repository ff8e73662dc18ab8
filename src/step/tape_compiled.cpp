// The tape under torch.compile: AOTAutograd's partition and inductor's fusion, as one rule.
//
// Inductor fuses pointwise chains and the reductions at their ends into the kernels that need them,
// so a pointwise result is a tensor only where a kernel that is not fused (a matrix product,
// attention, a collective) reads it, or where it leaves the graph. The min-cut partitioner
// (torch/_functorch/partitioners.py of PyTorch 2.6) never recomputes those kernels
// (get_default_op_list), nor reductions to less than a quarter of their input (ban_if_reduction),
// nor random numbers, nor what is materialised for backward (ban_if_materialized_backward);
// everything else is recomputed from what is kept. So the kept tensors are the materialised ones
// that backward can be computed from: a saved tensor that is still pending holds its sources.
//
// Where this differs from the partitioner: it weighs bytes against the distance from backward, and
// may keep a fused result in place of its sources (softmax's result instead of 16-bit scores). The
// sizes agree within 2 % on the recorded blocks (tests/vectors/compile_test.cpp).
#include <algorithm>
#include <unordered_set>
#include <utility>

#include "step/tape.h"

namespace steelyard::step {

namespace {

// What a fused kernel reads: the tensors that exist behind a pending one.
Bytes read_by_fused(const StorageRef& storage) {
  Bytes sum;
  std::unordered_set<const Storage*> seen;
  std::vector<const Storage*> stack = {storage.get()};
  while (!stack.empty()) {
    const Storage* at = stack.back();
    stack.pop_back();
    for (const StorageRef& source : at->sources) {
      if (!seen.insert(source.get()).second) continue;
      if (source->pending) {
        stack.push_back(source.get());
      } else {
        sum += source->bytes;
      }
    }
  }
  return sum;
}

}  // namespace

void Tape::materialise(const StorageRef& storage) {
  if (!storage || !storage->pending) return;
  const Bytes read = read_by_fused(storage);
  storage->pending = false;
  // The kernel reads its sources while it writes.
  const std::vector<StorageRef> sources = std::exchange(storage->sources, {});
  emit(EventKind::allocate, storage->slot);
  if (read == Bytes()) return;  // what no fused kernel makes
  Work entry;
  entry.backward = in_backward_;
  entry.recomputed = recomputing_;
  entry.traffic = read + storage->bytes;
  entry.name = program_.slots[static_cast<std::size_t>(storage->slot)].name;
  program_.work.push_back(entry);
  emit(EventKind::work, static_cast<std::int32_t>(program_.work.size()) - 1);
}

// The current operation has computed: its results are there, or wait for who reads them.
void Tape::settle(WorkKind kind) {
  const std::vector<StorageRef> made = std::exchange(fresh_, {});
  const bool fused = kind == WorkKind::memory && operation_ != OperationKind::other;
  if (!fused) {
    for (const StorageRef& read : reads_) materialise(read);
    for (const StorageRef& result : made) materialise(result);
    return;
  }
  Bytes input;
  for (const StorageRef& read : reads_) input += read->bytes;
  std::vector<StorageRef> sources = reads_;
  for (const StorageRef& result : made) {
    if (operation_ != OperationKind::reduction || 4 * result->bytes >= input) continue;
    result->sources = reads_;
    materialise(result);  // a reduction's result is not computed twice
    sources.push_back(result);
  }
  for (const StorageRef& result : made) {
    if (result->pending) result->sources = sources;
  }
}

// Results that nobody said how they were computed.
void Tape::settle_rest() {
  for (const StorageRef& result : std::exchange(fresh_, {})) {
    if (result.use_count() > 1) materialise(result);
  }
}

void Tape::materialise_random(const Tensor& mask, const Tensor& result) {
  if (result.storage->pending) result.storage->sources.push_back(mask.storage);
  materialise(mask);
}

Tensor Tape::known_cast(const Tensor& tensor, DType dtype) const {
  if (!options_.compiled || bytes_of(tensor) != tensor.storage->bytes) return {};
  for (const auto& [type, cast] : tensor.storage->casts) {
    StorageRef known = type == dtype ? cast.lock() : nullptr;
    if (known) return alias(std::move(known), tensor.numel, dtype);
  }
  return {};
}

void Tape::remember_cast(const Tensor& tensor, const Tensor& cast) {
  if (!options_.compiled || bytes_of(tensor) != tensor.storage->bytes) return;
  tensor.storage->casts.emplace_back(cast.dtype, cast.storage);
}

void Tape::end_operation() {
  if (!options_.compiled) return;
  settle_rest();
  reads_.clear();
}

Tensor Tape::compiled_sum(const Tensor& a, const Tensor& b) {
  Tensor sum = adopted(a.numel, a.dtype, "add_gradients", facts::VramCategory::temporaries);
  sum.storage->pending = true;
  sum.storage->sources = {a.storage, b.storage};
  return sum;
}

}  // namespace steelyard::step
