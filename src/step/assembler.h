// Puts the traces of the blocks together: setup, micro-batches, reduction, optimizer, zero_grad;
// and wraps them in what the sharding gathers, reduces and frees.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "facts/constants.h"
#include "facts/job.h"
#include "model/graph.h"
#include "step/block_trace.h"
#include "step/layout.h"
#include "step/program.h"

namespace steelyard::step {

class Assembler {
 public:
  Assembler(const model::Graph& graph, const facts::Job& job,
            const facts::FrameworkProfile& profile, const Variants& variants, const Layout& layout,
            const AdapterHabits& habits);

  [[nodiscard]] Program assemble();

 private:
  struct Unit {
    const model::Block* block = nullptr;
    BlockTrace trace;
    bool layer = false;        // its own sharding unit; embed and head belong to the root unit
    Bytes parameters;          // own (untied) weights, as gathered
    std::int64_t trained = 0;  // elements of them that train
    // Slots, when the sharding gathers: the unsharded parameters, the flat buffer they arrive in,
    // and the flat buffer that the reduce-scatter reads.
    std::int32_t gathered = -1, gather_buffer = -1, reduce_input = -1, reduced = -1;
    std::vector<std::int32_t> sharded_gradients;  // by weight; persistent
  };
  struct Chain {  // one segment
    std::int64_t repeat = 1;
    std::vector<Unit> units;
  };

  // setup.cpp
  void add_batch();
  void add_parameters();
  void add_optimizer_states();
  void add_communication_buffers();
  void add_existing_gradients();
  void set_states();
  // micro_batch.cpp
  [[nodiscard]] std::vector<Chain> trace_chains();
  void add_micro_batches();
  [[nodiscard]] Phase forward_phase(std::vector<Chain>& chains);
  [[nodiscard]] Phase backward_phase(std::vector<Chain>& chains, bool reduces);
  void add_forward(std::vector<Chain>& chains, Phase& phase);
  void end_forward(std::vector<Chain>& chains, Phase& phase);
  void end_micro_batch(std::vector<Chain>& chains, Phase& phase);
  void reduce_replicated(std::vector<Event>& events, Unit& unit, bool reduces);
  void add_backward(std::vector<Chain>& chains, Phase& phase, bool reduces);
  void open_layer(std::vector<Event>& events, Unit& unit, bool backward);
  void close_layer(std::vector<Event>& events, Unit& unit, bool backward);
  // The root unit: every block that is not a repeated layer.
  void add_root(std::vector<Chain>& chains, Phase& phase, std::string_view layer,
                void (Assembler::*what)(std::vector<Event>&, Unit&));
  void gather_root(std::vector<Event>& events, Unit& unit);
  void release_root(std::vector<Event>& events, Unit& unit);
  void reduce_sharded(std::vector<Event>& events, Unit& unit);
  void keep_shards(std::vector<Event>& events, Unit& unit);
  void make_sharding_slots(Unit& unit);
  void make_mask();
  // optimizer_phase.cpp
  void add_optimizer_step();
  void add_zero_grad(std::vector<Chain>& chains);

  std::int32_t slot(Bytes bytes, facts::VramCategory category, std::string_view name,
                    Stream stream = Stream::compute);
  void allocate(std::vector<Event>& events, std::int32_t slot_index);
  void free(std::vector<Event>& events, std::int32_t slot_index);
  // `stride`: distance of neighbouring ranks of the group, in ranks of the job.
  void communicate(std::vector<Event>& events, Collective kind, Bytes payload, bool overlaps,
                   std::string_view name, std::int64_t ranks, std::int64_t stride = 1);
  void work(std::vector<Event>& events, WorkKind kind, Bytes traffic, std::string_view name);
  std::int32_t name(std::string_view text);
  void count_kernels();
  [[nodiscard]] std::int64_t micro_batches() const;
  [[nodiscard]] bool reduces_each_micro_batch() const;

  const model::Graph& graph_;
  const facts::Job& job_;
  const facts::FrameworkProfile& profile_;
  const Variants& variants_;
  const Layout& layout_;
  const AdapterHabits& habits_;
  Program program_;
  SharedTensors shared_;
  std::map<std::string, std::int32_t, std::less<>> names_;
  std::vector<Chain> chains_;
  std::int32_t mask_ = -1;                                     // of the model's own attention code
  std::int32_t reduce_bucket_ = -1, gradient_partition_ = -1;  // DeepSpeed's
  std::int32_t live_window_ = -1;  // ZeRO-3 keeps gathered parameters that are soon needed again
};

}  // namespace steelyard::step
