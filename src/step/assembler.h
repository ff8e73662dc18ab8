// Puts the traces of the blocks together: setup, micro-batches, reduction, optimizer, zero_grad;
// and wraps them in what the sharding gathers, reduces and frees.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "facts/constants.h"
#include "facts/job.h"
#include "model/graph.h"
#include "step/block_trace.h"
#include "step/groups.h"
#include "step/layout.h"
#include "step/pipeline.h"
#include "step/program.h"
#include "step/recompute_plan.h"
#include "step/step.h"
#include "step/weight_storage.h"
#include "step/workshop.h"

namespace steelyard::step {

// Not the embedding, nor the head, nor what lies between an encoder and its decoder.
[[nodiscard]] bool is_layer(const model::Block& block);
// Rows of embedding tables that lie in host memory, and what the optimizer keeps of them beside
// them.
[[nodiscard]] Bytes host_tables(const model::Graph& graph, const Layout& layout);

class Assembler {
 public:
  Assembler(const Stage& stage, const facts::Job& job, const facts::FrameworkProfile& profile,
            const Variants& variants, const Layout& layout, const AdapterHabits& habits);

  // The frozen models beside the trained one; they outlive the assembler.
  void bring(const std::vector<Companion>& companions) { companions_ = &companions; }
  // The model is only asked: its forward pass runs under torch.no_grad().
  void ask_only() { asks_only_ = true; }
  // Traces that other programs have too come from there; null: all are its own.
  void work_in(Workshop* workshop) { workshop_ = workshop; }
  // The program is asked how long it takes, not what it holds.
  void tell_times_only() { times_only_ = true; }
  [[nodiscard]] Program assemble();
  // Of the model as this stage holds it: the whole job's when the stage is the whole model.
  [[nodiscard]] StateSizes states() const;

 private:
  struct Unit {
    const model::Block* block = nullptr;
    BlockTrace trace;
    bool layer = false;
    bool wrapped = false;  // a sharding unit: layers, and embed and head where not in the root's
    Bytes parameters;      // own (untied) weights, as gathered
    std::int64_t trained = 0;  // elements of them that train, or of the flat parameter that does
    // Slots, when the sharding gathers: the unsharded parameters, the flat buffer they arrive in,
    // and the flat buffer that the reduce-scatter reads.
    std::int32_t gathered = -1, gather_buffer = -1, reduce_input = -1, reduced = -1;
    std::int32_t viewed = -1;            // ZeRO-3: the gathered weights that products hold
    bool recomputed = false;             // they begin to in the recomputation
    std::int32_t flat_gradient = -1;     // FSDP1: of the whole flat parameter
    std::int32_t sharded_gradient = -1;  // persistent
    std::int32_t whole_gradient = -1;    // summed over micro-batches before it is reduced
  };
  struct Chain {  // layers of a segment that are alike
    std::int64_t repeat = 1;
    std::vector<Unit> units;
  };
  // ZeRO-3: slots of what is gathered before the layers, while they run, in their last part, and
  // of the head; the chains that are layers begin at `first` and end with `last`.
  struct LiveWindow {
    std::int32_t front = -1, steady = -1, ahead = -1, behind = -1;
    std::size_t first = 0, last = 0;
  };
  // A run of layers that the rank passes through in one go; several with virtual stages.
  struct Chunk {
    std::vector<Chain> chains;
    std::vector<std::int32_t> unheld;  // of tensors that its layers share, and no backward reads
    std::int32_t mask = -1, mask_source = -1;  // of the model's own attention code
    LiveWindow window;
    // Between stages; -1 where the model begins or ends.
    std::int32_t received = -1, sent = -1, received_gradient = -1, sent_gradient = -1;
    // DeepSpeed: the rank's part of what was sent; the whole of it gathered, and again for
    // backward.
    std::int32_t sent_part = -1, gathered = -1, rebuilt = -1;
    Bytes received_bytes, received_gradient_bytes;
    std::vector<std::int32_t> for_the_step;  // slots that stay until the next step begins
    std::int32_t logits = -1;                // of those, what the schedule returns; -1: nothing
    std::int32_t held_input = -1, held_gradient = -1;  // of its last micro-batch, until the next
    std::vector<std::int32_t> deferred;  // gradients of logits that wait for the pipeline to drain
    bool has_loss = false;
    Bytes offloaded;  // of a micro-batch, to wait on the host for its backward pass
  };

  // setup.cpp
  void add_batch();
  void add_global_buffer();
  void add_captures();
  // offload.cpp
  void transfer(std::vector<Event>& events, Bytes bytes, std::string_view what);
  void fetch_parameters(std::vector<Event>& events, const Unit& unit);
  void send_gradients_to_host(std::vector<Event>& events, const Unit& unit);
  void send_activations_to_host(Chunk& chunk);
  [[nodiscard]] bool gradients_leave_at_once() const;
  void fetch_rows(std::vector<Event>& events, const Unit& unit);
  void return_rows(std::vector<Event>& events, const Unit& unit);
  void step_host_rows(std::vector<Event>& events, const model::Weight& weight);
  void host_step(std::vector<Event>& events, std::int64_t numel);
  void step_on_host(Phase& phase);
  void add_gradient_relay(std::vector<Event>& events);
  // swap.cpp
  [[nodiscard]] Bytes swapped_parameters(const model::Block& block,
                                         bool only_trained = false) const;
  [[nodiscard]] Bytes swapped_gradients(const model::Block& block) const;
  void drive(std::vector<Event>& events, WorkKind kind, Bytes bytes, std::string_view what,
             bool beside_host = false);
  void swap_gradients_out(std::vector<Event>& events, const Unit& unit);
  void swap_parameters_out(Phase& phase);
  void step_from_drive(Phase& phase);
  void add_parameters();
  void hold_parameters(std::vector<Event>& events, const model::Block& block);
  // building.cpp
  [[nodiscard]] bool quantizes_whole(const model::Weight& weight) const;
  std::int32_t piece_slot(const Piece& piece, const model::Weight& weight);
  std::int32_t passing(std::vector<Event>& events, Bytes bytes, std::string_view text);
  void quantize(std::vector<Event>& events, const model::Weight& weight,
                const std::vector<std::int32_t>& pieces);
  void copy_quantized(std::vector<Event>& events, const model::Weight& weight,
                      const std::vector<std::int32_t>& pieces);
  void build_parameters(Phase& phase);
  [[nodiscard]] Body layer_to_copy(Body& gone);
  void build_quantized(std::vector<Event>& events, const model::Weight& weight);
  void load_quantized();
  void add_buffer(facts::DType dtype, facts::VramCategory category, std::string_view text,
                  std::optional<bool> short_weights);
  void add_buffers();
  void add_companions();  // companions.cpp
  void grade_the_rest(Unit& unit);
  [[nodiscard]] bool tied_elsewhere(const std::string& weight) const;
  [[nodiscard]] Bytes batch_bytes(const model::TensorInfo& info) const;
  void add_optimizer_states();
  void add_communication_buffers();
  void add_existing_gradients();
  void add_fp8_casts();  // fp8_setup.cpp
  // zero_partitions.cpp
  [[nodiscard]] bool partitions() const;
  [[nodiscard]] bool flat_states() const;
  [[nodiscard]] bool gradients_stepped() const;
  [[nodiscard]] bool sums_wide() const;
  [[nodiscard]] bool flattens_on_card(Bytes flat) const;
  [[nodiscard]] std::int64_t partition_elements() const;
  [[nodiscard]] std::int64_t gradient_partition_elements(std::int64_t trained) const;
  std::int32_t partition_slot(facts::DType dtype, facts::VramCategory category,
                              std::string_view text);
  void add_flattened_parameters();
  void add_partition_states();
  void add_partition(std::vector<Event>& events, bool first);
  void join_bucket(std::vector<Event>& events, bool first);
  void check_gradients(Phase& phase);
  void partition_gradients(Phase& phase);
  void step_partition(Phase& phase);
  // zero3_window.cpp
  [[nodiscard]] std::int64_t asked_elements(const Unit& unit) const;
  void make_live_window(Chunk& chunk);
  void change_window(Phase& phase, std::initializer_list<std::int32_t> come,
                     std::initializer_list<std::int32_t> go);
  void slide_forward(const Chunk& chunk, std::size_t at, Phase& phase);
  void slide_backward(const Chunk& chunk, std::size_t at, Phase& phase);
  void close_window(const Chunk& chunk, Phase& phase);
  void copy_by_rank(std::vector<Event>& events);
  void make_viewed_slot(Unit& unit);
  void hold_viewed(std::vector<Event>& events, const Unit& unit, bool backward);
  [[nodiscard]] bool reduces_at_once(const Unit& unit) const;
  // micro_batch.cpp
  [[nodiscard]] BlockOptions block_options() const;
  void trace_chunks();
  [[nodiscard]] std::vector<LayerRun> layer_runs(const model::Segment& segment, bool last);
  [[nodiscard]] Chain trace_run(const LayerRun& run, BlockOptions& options, bool last,
                                bool before_head);
  void add_chains(Chunk& chunk, const LayerRun& run, BlockOptions& options, bool last,
                  bool before_head);
  void add_micro_batches();
  [[nodiscard]] Phase forward_phase(Chunk& chunk, bool first);
  [[nodiscard]] Phase backward_phase(Chunk& chunk, const Turn& turn);
  void add_forward(Chunk& chunk, Phase& phase, bool first);
  void hold_inputs(Chunk& chunk);
  void keep_for_the_step(Chunk& chunk);
  void add_receive_buffer(std::int32_t& received, std::string_view what);
  void stay(Chunk& chunk, std::int32_t index);
  void merge_logits(const Chunk& chunk);
  void end_schedule(Phase& phase) const;
  [[nodiscard]] bool torch_pipeline() const;
  void defer_head_gradients(Chunk& chunk);
  void end_forward(Chunk& chunk, Phase& phase);
  void end_micro_batch(Chunk& chunk, Phase& phase, bool last);
  // pipeline_passes.cpp
  void find_borders(Chunk& chunk);
  [[nodiscard]] bool engine_pipeline() const;
  [[nodiscard]] bool keeps_output(const Chunk& chunk) const;
  void split_output(Chunk& chunk);
  void send_output(Chunk& chunk, Phase& phase);
  void rebuild_output(Chunk& chunk, Phase& phase);
  void receive(Phase& phase, std::int32_t index, Bytes bytes, std::string_view what);
  void send(Phase& phase, std::int32_t index, std::string_view what, bool release);
  void add_turns();
  [[nodiscard]] Bytes waiting_on_the_host() const;
  [[nodiscard]] Pass pass_of(const TurnPass& from);
  void reduce_replicated(std::vector<Event>& events, Unit& unit, bool reduces);
  void add_backward(Chunk& chunk, Phase& phase, const Turn& turn);
  void copy_out(std::vector<Event>& events, const Unit& unit);
  void copy_in(std::vector<Event>& events, const Unit& unit);
  [[nodiscard]] bool wraps_end(const model::Block& block) const;
  [[nodiscard]] bool has_gather_buffer(const Unit& unit, bool backward) const;
  void open_layer(std::vector<Event>& events, Unit& unit, bool backward, bool reduces);
  void close_layer(std::vector<Event>& events, Unit& unit, bool backward, bool last);
  // The root unit: every block that is not a repeated layer.
  void add_root(Chunk& chunk, Phase& phase, std::string_view layer,
                void (Assembler::*what)(std::vector<Event>&, Unit&));
  void gather_root(std::vector<Event>& events, Unit& unit);
  [[nodiscard]] bool reshards_root() const;
  void append_backward(Chunk& chunk, std::vector<Event>& events, const Unit& unit);
  void release_root(std::vector<Event>& events, Unit& unit);
  void reduce_sharded(std::vector<Event>& events, Unit& unit);
  [[nodiscard]] bool sums_whole_gradients() const;
  void sum_whole_gradients(std::vector<Event>& events, Unit& unit);
  void add_flat_gradient(std::vector<Event>& events, Unit& unit);
  [[nodiscard]] bool mixes_unit(const Unit& unit) const;
  void keep_shard(std::vector<Event>& events, Unit& unit);
  [[nodiscard]] bool saves_shards() const;
  void release_saved_shards(const Chunk& chunk, Phase& phase);
  [[nodiscard]] bool holds_last_reduction(const Unit& unit) const;
  void make_sharding_slots(Unit& unit);
  [[nodiscard]] std::int32_t flatten(std::vector<Event>& events, const model::Block& block);
  void add_flattened(Phase& phase);
  // shared_tensors.cpp
  void make_mask(Chunk& chunk);
  void add_mask(const Chunk& chunk, Phase& phase);
  void settle_shared(Chunk& chunk);
  // optimizer_phase.cpp
  void add_unscaling();  // unscale_phase.cpp
  void unscale_in_place(Phase& phase);
  void check_overflow(Phase& phase, bool summed);
  void unscale_apart(Phase& phase, bool summed);
  [[nodiscard]] double host_passes() const;
  void add_clipping();  // clip_phase.cpp
  void add_total_norm(Phase& phase, std::vector<Body> release, std::int64_t tensors,
                      std::int64_t chunks, DType type);
  void add_optimizer_step();
  [[nodiscard]] Bytes main_gradient(const model::Weight& weight) const;
  [[nodiscard]] std::int32_t stepped_gradient(const model::Weight& weight);
  // Of the master weights: whole fp32 gradients that live from step to step.
  [[nodiscard]] bool keeps_master_gradients() const;
  [[nodiscard]] std::vector<Body> widen_gradients(Phase& phase);
  void replace_stepped(std::vector<Event>& events, const model::Weight& weight);
  void step_functionally(Phase& phase);
  [[nodiscard]] std::vector<std::int32_t> step_weight(std::vector<Event>& events,
                                                      const model::Weight& weight,
                                                      bool with_gradient = true);
  void step_and_free(std::vector<Event>& events, const model::Weight& weight, std::int32_t kept);
  void step_in_backward(Unit& unit);
  void step_tied_in_backward(Chunk& chunk);
  void step_together(Phase& phase);
  void step_one_by_one(Phase& phase);
  void add_zero_grad();
  [[nodiscard]] bool stays_gathered(const Unit& unit) const;
  void release_frozen_units(const Chunk& chunk, Phase& phase);
  void add_left_over(const Chunk& chunk, Phase& phase, EventKind kind);
  void release_held(const Chunk& chunk, Phase& phase, std::vector<Event> BlockTrace::*which);
  [[nodiscard]] bool held_to_the_end() const;
  void release_gradients(std::vector<Event>& events, const Unit& unit);

  std::int32_t slot(Bytes bytes, facts::VramCategory category, std::string_view name,
                    Stream stream = Stream::compute);
  // Tells the slot's type, and dimensions when they are those of `whole`.
  std::int32_t typed(std::int32_t slot_index, DType dtype, const model::Shape& whole);
  void allocate(std::vector<Event>& events, std::int32_t slot_index);
  void free(std::vector<Event>& events, std::int32_t slot_index);
  void communicate(std::vector<Event>& events, Collective kind, Bytes payload, bool overlaps,
                   std::string_view name, const Group& group);
  void work(std::vector<Event>& events, WorkKind kind, Bytes traffic, std::string_view name);
  std::int32_t name(std::string_view text);
  void count_kernels();
  [[nodiscard]] std::int64_t micro_batches() const;
  [[nodiscard]] std::int64_t further_communicators() const;
  [[nodiscard]] bool leaves_out_states() const;
  [[nodiscard]] bool reduces_each_micro_batch() const;

  const Stage& stage_;
  const model::Graph& graph_;  // of the stage
  const facts::Job& job_;
  const facts::FrameworkProfile& profile_;
  const Variants& variants_;
  const Layout& layout_;
  const AdapterHabits& habits_;
  const std::vector<Companion>* companions_ = nullptr;
  bool asks_only_ = false, times_only_ = false;
  Workshop* workshop_ = nullptr;
  Names traced_names_;
  Groups groups_;
  Program program_;
  SharedTensors shared_;
  RecomputePlan recompute_plan_{job_.train.recompute};
  std::map<std::string, std::int32_t, std::less<>> names_;
  std::vector<Chunk> chunks_;
  std::map<std::string, std::int32_t, std::less<>> tied_gradients_;  // by owner: kept for it
  std::vector<Body> released_by_zero_grad_;  // what the optimizer leaves until the next step
  std::int32_t reduce_bucket_ = -1, gradient_partition_ = -1, bucket_copy_ = -1;  // DeepSpeed's
  // What a step writes of each weight: what it updates first, then its averages.
  std::map<const model::Weight*, std::vector<std::int32_t>> stepped_;
  // Pieces of quantized weights before the files are read.
  std::map<const model::Weight*, std::vector<std::int32_t>> built_quantized_;
  std::int32_t next_partition_ = -1;  // ZeRO-2: of a further micro-batch, until it is added
};

}  // namespace steelyard::step
