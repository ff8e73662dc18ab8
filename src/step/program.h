// The program of one rank for one training step: what is allocated and freed, computed and sent, in
// order. `vram` reads the allocations, `pace` the work, both the same program.
//
// The program is compact: a layer that repeats is one body with a count. A slot that is allocated
// in iteration i of a forward body is freed in the iteration of a later body that works on the same
// layer (backward bodies run their iterations in reverse). Several micro-batches may be in flight
// (pipelines), so (slot, layer, micro-batch) names one allocation; slots that outlive a micro-batch
// (gradients) are named by (slot, layer), and what stays for the step by (slot, micro-batch of the
// step). `expand.h` turns these names into numbers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/quantity.h"
#include "facts/dtype.h"
#include "facts/plan.h"

namespace steelyard::step {

enum class EventKind : std::uint8_t {
  allocate,  // index: slot
  free,      // index: slot
  adopt,     // index: slot; the tensor carried over from the iteration before gets this name
  carry,     // index: slot; hands the tensor over to the next iteration
  // index: Program::gradients. The fresh tensor becomes the kept one when there is none yet;
  // otherwise it is added to the kept one and freed.
  keep_gradient,
  ensure,          // index: slot; allocates it unless it is there
  release_shared,  // index: slot; freed by the layer whose backward pass comes last (layer 0)
  release_cached,  // index: any slot; what the allocator holds free goes back to the device
  work,            // index: Program::work
  communicate,     // index: Program::communication
};

// Free lists are per stream: what a side stream frees cannot serve the compute stream.
enum class Stream : std::uint8_t { compute, all_gather, reduce };

// The sizes of a tensor's dimensions; rank 0: not known.
struct Extent {
  std::array<std::int64_t, 4> sizes{};
  int rank = 0;

  friend bool operator==(const Extent&, const Extent&) = default;
};

struct Slot {
  Bytes bytes;  // as requested; the allocator rounds
  facts::VramCategory category = facts::VramCategory::temporaries;
  Stream stream = Stream::compute;
  std::int32_t name = 0;  // Program::names: the operation that made it
  bool managed = false;   // cudaMallocManaged: on the GPU, but not of the caching allocator
  bool outlives_micro_batch = false;  // one per layer, whatever the number of micro-batches
  bool shared = false;                // one per micro-batch, whatever the number of layers
  // Both: one per micro-batch of the step, until the next one begins.
  [[nodiscard]] bool stays_for_the_step() const { return outlives_micro_batch && shared; }
  // Used on a stream that is not its own (record_stream): once freed, the block waits for that
  // stream. The host runs ahead of the GPU by as much as FSDP's rate limiter lets it.
  bool recorded = false;
  // For who reads the program; none: bytes that are no tensor of one type.
  std::optional<facts::DType> dtype{};
  Extent extent{};
};

struct Gradient {
  std::int32_t fresh = -1;  // slot of what one backward pass made
  std::int32_t kept = -1;   // slot of what the optimizer reads
};

enum class WorkKind : std::uint8_t {
  gemm,       // m x n x k
  attention,  // fused attention kernel
  memory,     // pointwise, reductions, copies: bound by memory bandwidth
  optimizer,  // the same, of the optimizer step
  transfer,   // over the link between GPU and host, beside the computation of its body
  host,       // done by the host's processors, bound by their memory or their arithmetic
  fetch,      // as transfer, but nothing else runs meanwhile
  // By the node's drive, beside the computation of its body; in the optimizer's phases nothing else
  // runs meanwhile, unless `beside_host` says so.
  drive_read,
  drive_write,
};

struct Work {
  WorkKind kind = WorkKind::memory;
  facts::DType dtype = facts::DType::fp32;  // of the arithmetic
  bool tf32 = false;                        // fp32 multiplied in tf32
  bool backward = false;
  bool recomputed = false;   // counted by HFU, not by MFU
  bool beside_host = false;  // of a drive: while the host's processors work in the same body
  Flops flops;
  Bytes traffic;                                // read and written
  std::int64_t m = 0, n = 0, k = 0, batch = 1;  // gemm: rows of the result, columns, depth, count
  std::int32_t name = 0;
};

// Of the copies out of the GPU of what forward saves (offload.activations).
inline constexpr const char* kActivationsToHost = "activations to the host";

// send: from one rank to the next, both directions of a link at once.
enum class Collective : std::uint8_t { all_reduce, all_gather, reduce_scatter, all_to_all, send };

struct Communication {
  Collective kind = Collective::all_reduce;
  Bytes payload;           // the full (unsharded) buffer
  std::int64_t ranks = 1;  // in the group
  std::int64_t ranks_per_node = 1;
  bool overlaps = false;  // may run beside the compute of its own body
  std::int32_t name = 0;
};

struct Event {
  EventKind kind = EventKind::work;
  std::int32_t index = 0;
};

struct Body {
  std::string layer;  // "model.layers"
  std::int64_t repeat = 1;
  bool reversed = false;  // iterations go from the last layer to the first
  std::vector<Event> events;
};

enum class PhaseKind : std::uint8_t {
  setup,
  forward,
  backward,
  reduction,
  clip,
  optimizer,
  zero_grad,
  generation,  // a policy samples
  scoring,     // a model is asked about samples, without gradients
};
[[nodiscard]] const char* name_of(PhaseKind kind);

// The n-th forward phase of a chunk in a step works on micro-batch n, so does its n-th backward
// phase. A pipeline stage that holds several runs of layers has several chunks.
struct Phase {
  PhaseKind kind = PhaseKind::forward;
  std::vector<Body> bodies;
  std::int32_t chunk = 0;
  // Runs so often in a row, each time alike (the tokens of a generation): memory after the second
  // time is as after all, so readers of allocations play two.
  std::int64_t repeat = 1;
};

// Phases that run `repeat` times in a row.
struct Pass {
  std::int64_t repeat = 1;
  std::vector<Phase> phases;
  // Which phase comes when, where some come more than once; empty: each once, in their order.
  std::vector<std::int32_t> order = {};
};

// Calls visit(phase) for all phases of one run of the pass.
template <class Visit>
void for_each_phase(const Pass& pass, Visit&& visit) {
  for (const std::int32_t index : pass.order) visit(pass.phases[static_cast<std::size_t>(index)]);
  if (!pass.order.empty()) return;
  for (const Phase& phase : pass.phases) visit(phase);
}

// Passes of the step that run several times in a row: updates between two generations.
struct Repeated {
  std::size_t begin = 0, end = 0;
  std::int64_t times = 1;

  [[nodiscard]] std::int64_t of(std::size_t pass) const {
    return pass >= begin && pass < end ? times : 1;
  }
};

// What the ranks hold of the model's states, summed over the whole job; for host memory.
// Weights of one size.
struct WeightSize {
  std::int64_t times = 0;     // how many
  std::int64_t elements = 0;  // of each
  Bytes bytes;                // of each as held
  bool trains = false;
};

struct StateSizes {
  Parameters parameters, trainable;
  Bytes parameter_bytes;  // one full copy as held (fp32 when mixed, quantized when frozen so)
  Bytes trainable_bytes;  // of those that train
  Bytes gradient_bytes;   // one full copy
  Bytes optimizer_bytes;  // one full copy, master weights included
  Bytes batch_bytes;      // one micro-batch on the GPU
  Bytes made_bytes;  // parameters that a rank makes: one full copy, its own part of placed tables
  Bytes largest_block_bytes;   // parameters of a rank's largest block, as trained, tables as placed
  Bytes embedding_host_bytes;  // tables in host memory and their states, of the fullest rank alone
  // Of models beside the trained one, counted in the sums above: their parameters, those of them
  // that train, the bytes of those that do not, and what of one rank waits in host memory.
  Parameters beside{}, trains_beside{};
  Bytes frozen_beside{}, waiting_bytes{};
  // Of companions that compute on the host (held = "cpu"), in each rank: their weights, and the
  // most that a forward pass needs beside them.
  Bytes companion_host_bytes{}, companion_host_work{};
  std::vector<WeightSize> weights{};  // of one full copy, one after the other; empty: unknown
};

struct Program {
  std::vector<std::string> names;
  std::vector<Slot> slots;
  std::vector<Gradient> gradients;
  std::vector<Work> work;
  std::vector<Communication> communication;
  std::vector<Pass> setup;  // once: parameters, buffers
  // Once, inside the first step, right before its optimizer phase: PyTorch's optimizers allocate
  // their states in the first step(), among what the first backward left in the allocator.
  std::vector<Pass> first_optimizer;
  std::vector<Pass> step;  // every step
  Repeated updates;
  // Micro-batches of one chunk whose forward pass has run and whose backward pass has not, at most.
  std::int64_t in_flight = 1;
  // Stages that wait for each other at the ends of a step, over the chunks that each divides its
  // work into: a pipeline stands still for (stages - 1) / chunks passes of a micro-batch.
  std::int64_t stages = 1, chunks = 1;
  std::int64_t micro_batches = 1;  // per step
  StateSizes states;
  // The bytes of all slots in micro-batches that come before all others, of shorter samples.
  std::vector<std::vector<Bytes>> shorter_steps;
  // The gradients' shards stay until the next forward begins: between steps they are still there.
  bool gradients_outlive_step = false;
  // Freed units of FSDP1 that may wait for their streams (Slot::recorded); 0: its rate limiter is
  // off, and the host runs ahead until it reads the loss of the micro-batch.
  std::int64_t units_in_flight = 2;
  // Kernel launches of one step; eager frameworks cannot issue them faster than the host allows.
  std::int64_t kernels = 0;
  std::int64_t ranks = 1;
  facts::DType compute = facts::DType::fp32;  // of matrix products, and so of keys and values
  // Communicators that allocate buffers outside of the allocator.
  std::int64_t communicators = 0;
  // offload.activations: bytes of one rank that wait on the host between forward and backward.
  Bytes offloaded_activations;
};

}  // namespace steelyard::step
