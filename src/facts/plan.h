// The plan: everything `steelyard plan` says, as plain values, key for key as in job-format.md.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/quantity.h"
#include "facts/enums.h"
#include "facts/job.h"
#include "facts/machine.h"
#include "facts/origin.h"

namespace steelyard::facts {

// What a byte of GPU memory holds. `allocator` and `runtime` are outside of what tensors occupy.
enum class VramCategory {
  parameters,
  gradients,
  optimizer,
  activations,
  temporaries,
  communication,
  batch,
  allocator,
  runtime
};
STEELYARD_ENUM_NAMES(VramCategory, "parameters", "gradients", "optimizer", "activations",
                     "temporaries", "communication", "batch", "allocator", "runtime")
constexpr std::size_t kVramCategories = EnumNames<VramCategory>::values.size();

enum class RamCategory {
  system,
  framework,
  model_load,
  parameters,
  gradients,
  optimizer,
  activations,
  pinned,
  loader_workers,
  prefetch,
  dataset_cache,
  embedding_tables,
  shared_memory,
  checkpoint_staging,
  communication
};
STEELYARD_ENUM_NAMES(RamCategory, "system", "framework", "model_load", "parameters", "gradients",
                     "optimizer", "activations", "pinned", "loader_workers", "prefetch",
                     "dataset_cache", "embedding_tables", "shared_memory", "checkpoint_staging",
                     "communication")
constexpr std::size_t kRamCategories = EnumNames<RamCategory>::values.size();

enum class RamPhase { startup, load, steady, checkpoint };
STEELYARD_ENUM_NAMES(RamPhase, "startup", "load", "steady", "checkpoint")
constexpr std::size_t kRamPhases = EnumNames<RamPhase>::values.size();

// Bytes by category, indexed by the enumeration.
template <class Category, std::size_t N>
struct BytesBy {
  std::array<Bytes, N> bytes{};

  Bytes& operator[](Category category) { return bytes[static_cast<std::size_t>(category)]; }
  const Bytes& operator[](Category category) const {
    return bytes[static_cast<std::size_t>(category)];
  }
  [[nodiscard]] Bytes total() const {
    Bytes sum;
    for (Bytes part : bytes) sum += part;
    return sum;
  }
};
using VramBytes = BytesBy<VramCategory, kVramCategories>;
using RamBytes = BytesBy<RamCategory, kRamCategories>;

struct PeakAt {
  std::string phase;      // "forward", "backward", "optimizer", ...
  std::string layer;      // "model.layers" x index, "lm_head"; empty for the optimizer
  std::string operation;  // "log_softmax_backward"
};

struct Moment {
  std::string phase;
  std::string layer;
  std::string operation;  // what was allocated then
  VramBytes live;         // the fullest moment inside this layer and phase
};

// Tensors of one operation that are alive at the peak and live alike, in one layer or several.
struct TensorGroup {
  std::string operation;            // that made them: "self_attn.q_proj: mm"
  std::string layer;                // "model.layers.0-31"
  std::int64_t tensors = 1;         // alike
  std::vector<std::int64_t> shape;  // of each; empty when it is no tensor of one type
  std::string dtype;                // of its elements; empty with the shape
  Bytes bytes;                      // all of them, as the allocator counts
  VramCategory category = VramCategory::temporaries;
  PeakAt born;
  std::optional<PeakAt> freed;  // none: lives as long as the job
};

// One kind of rank: ranks of a kind hold the same.
struct RankMemory {
  std::string kind;        // "data-parallel rank"
  std::int64_t ranks = 1;  // how many of them
  Bytes peak_allocated;
  Bytes peak_reserved;
  Bytes peak_device_used;
  Bytes steady_allocated;  // between steps
  Bytes paged_out;         // managed memory that a full card leaves to the host
  // Outside of the allocator: context and loaded kernels (what a pool's card has besides, where
  // one pool takes all), and buffers of so many communicators; whose figures these are.
  Bytes context{}, collectives{};
  std::int64_t communicators = 0;
  std::string device_source{};
  VramBytes by_category;  // at the peak of device-used memory; sums to peak_device_used
  PeakAt peak_at;
};

struct VramPlan {
  Known<Bytes> capacity;  // of one card
  RankMemory fullest;
  std::vector<RankMemory> ranks;
  std::vector<Moment> timeline;                // of the fullest; empty unless asked for
  std::vector<std::vector<Moment>> timelines;  // of each kind of rank, in their order
};

// What `steelyard why JOB vram` says: what one kind of rank holds at its peak, tensor by tensor.
struct VramWhy {
  std::string job;
  Known<Bytes> capacity;  // of one card
  RankMemory rank;
  std::vector<std::string> kinds;    // of all ranks that the job has
  std::vector<TensorGroup> tensors;  // largest first
  Bytes workspaces;                  // allocated beside them: of the libraries that multiply
};

// A rule or an assumption that bytes of the host follow from.
struct RamRule {
  std::string sentence;  // "loader_workers: 8 ranks x 2 worker processes x 8.0 MiB ..."
  Provenance from = Provenance::derived;
  std::string source;  // software, report or recording that it is taken from
};

struct RamPlan {
  Known<Bytes> capacity;  // of a node
  Bytes peak;
  RamPhase peak_phase = RamPhase::startup;
  std::array<RamBytes, kRamPhases> phases{};  // per node
  Bytes page_cache_wanted;
  Bytes checkpoint_bytes;      // of the whole job, as written
  std::vector<RamRule> rules;  // all that were used
};

struct PaceBreakdown {  // seconds of a step; they sum to the step
  Seconds compute, memory_bound, exposed_communication, bubble, optimizer, offload, data_stall,
      checkpoint;
  [[nodiscard]] Seconds total() const {
    return compute + memory_bound + exposed_communication + bubble + optimizer + offload +
           data_stall + checkpoint;
  }
};

struct PacePlan {
  // Unknown when a needed figure of the machine is unknown; `missing` then names it.
  std::optional<Seconds> step;
  std::optional<SamplesPerSecond> samples;  // of the whole job
  std::optional<TokensPerSecond> tokens;    // of the whole job; text only
  std::optional<TokensPerSecond> tokens_per_gpu;
  std::optional<Ratio> mfu, hfu;
  std::optional<FlopsPerSecond> model_flops_per_gpu;  // without recomputation
  PaceBreakdown breakdown;
  std::vector<std::string> missing;
  std::vector<std::string> assumptions;
};

struct FeedStage {
  std::string name;                     // storage | read | decode | assemble | host-to-device
  std::optional<SamplesPerSecond> can;  // unknown when the machine does not say
  std::optional<SamplesPerSecond> needed;
  Bytes ram;                                       // per node
  std::string note;                                // how `can` is known
  std::optional<SamplesPerSecond> can_at_first{};  // in epoch 1, when no cache holds anything
};

// What reaches the GPUs in the first epoch, or in those that follow.
struct FeedFlow {
  std::optional<SamplesPerSecond> supply;  // of GPUs that take all that comes, per node
  std::optional<Ratio> gpu_wait_fraction;
  std::optional<Ratio> accelerator_utilization;  // MLPerf Storage's: without the first step
  std::string limited_by;  // a stage's name; empty when the GPUs are never short
};

// A host with several sockets: where ranks belong, and what their data path sends between sockets.
struct NumaPlan {
  std::vector<std::int64_t> socket_of_rank;  // on one node; empty with one socket
  bool bound = false;                        // each rank and its loaders stay there
  std::optional<BytesPerSecond> link;        // one way
  // One way, at the pace of the job: as the job is, and with every rank bound.
  std::optional<BytesPerSecond> crosses, crosses_bound;
  std::string note;
};

// One NUMA node of a host: who is near it, and what it holds when ranks are bound.
struct NodeLoad {
  std::int64_t node = 0;
  std::int64_t socket = 0;
  Known<Bytes> memory{};
  Known<std::int64_t> cores{};
  std::string cpus{};                 // "0-15,128-143"; empty: unknown
  std::vector<std::int64_t> ranks{};  // of one host, as are their GPUs
  std::vector<std::string> nics{};
  std::vector<std::string> drives{};  // on its lanes
  Bytes need{};                       // in its fullest phase
  RamPhase need_phase = RamPhase::startup;
  std::optional<bool> fits{};
};

// Where one rank of a host belongs, and the commands that put it there.
struct RankPlace {
  std::int64_t rank = 0;
  std::int64_t node = 0;
  std::int64_t socket = 0;
  std::string nic{};      // the nearest that is its own; empty: unknown
  bool nic_near = true;   // on its socket
  bool strict = false;    // there is room to keep its memory from other nodes
  std::string numactl{};  // "numactl --cpunodebind=0 --membind=0"
  std::string taskset{};  // "taskset -c 0-15,128-143"; empty: the threads are unknown
};

// One host with several NUMA nodes; of others only `note`.
struct NumaPlacement {
  bool assumed = false;  // where GPUs hang is not known
  std::string note;
  std::vector<NodeLoad> nodes;
  std::vector<RankPlace> ranks;
  // One way over the link between sockets in a step, and how long the link takes for it: as the job
  // is, and with every rank bound.
  std::optional<double> crossing_bytes, crossing_bytes_bound;
  std::optional<Seconds> crossing, crossing_bound;
  std::vector<std::string> remarks;  // whole sentences: what to look after

  // The first node that has no room for what bound ranks put there, nor has its socket.
  [[nodiscard]] const NodeLoad* short_node() const {
    for (const RankPlace& place : ranks) {
      for (const NodeLoad& load : nodes) {
        if (!place.strict && load.node == place.node && load.fits == false) return &load;
      }
    }
    return nullptr;
  }
};

struct FeedPlan : FeedFlow {  // once the first epoch is over
  std::vector<FeedStage> stages;
  FeedFlow first_epoch;
  std::optional<std::int64_t> workers_enough;   // fewest per rank with which the GPUs never starve
  std::optional<std::int64_t> prefetch_enough;  // least batches ahead that lose nothing
  std::optional<Ratio> spread_loss;             // of the supply, because samples differ in size
  NumaPlan numa;
};

enum class BalanceVerdict {
  balanced,
  vram_short,
  ram_short,
  vram_idle,
  ram_idle,
  starved_by_storage,
  starved_by_cpu,
  starved_by_link
};
STEELYARD_ENUM_NAMES(BalanceVerdict, "balanced", "vram_short", "ram_short", "vram_idle", "ram_idle",
                     "starved_by_storage", "starved_by_cpu", "starved_by_link")

enum class Tier { entry, mid, large };
STEELYARD_ENUM_NAMES(Tier, "entry", "mid", "large")

// What a change asks of a person: to set keys; to look after results, data or code too; to move.
enum class AdviceEffort { setting, care, machine };
STEELYARD_ENUM_NAMES(AdviceEffort, "setting", "care", "machine")

// The job with `set` applied, really planned again.
struct Advice {
  std::string sentence;
  std::vector<std::pair<std::string, std::string>> set;  // key, value as for --set
  bool fits = false;
  Bytes vram_peak;
  Bytes ram_peak;
  std::optional<Seconds> step{};
  std::optional<double> cost_per_hour{};
  std::optional<double> cost_per_million_samples{};
  // Samples per second, per money where both machines have a price, over those of the job as it is;
  // unknown where a step time is.
  std::optional<Ratio> gain{};
  AdviceEffort effort = AdviceEffort::setting;
};

struct BalancePlan {
  std::optional<Ratio> ratio_needed;  // RAM : VRAM
  std::optional<Ratio> ratio_installed;
  Tier tier = Tier::entry;
  Bytes whole_job;  // one whole copy of the states and what a GPU's passes hold: decides the tier
  bool data_heavy = false;  // its data ask for more memory than that, or for a storage's full rate
  Ratio rule_low, rule_high;     // rule of thumb of the tier
  bool rule_open_ended = false;  // "and more"
  std::vector<BalanceVerdict> verdicts;
  std::vector<std::string> sentences;  // what a person would say, one per verdict
  std::vector<Advice> advice;
};

struct CostPlan {
  double per_hour = 0.0;  // all nodes
  std::string currency;
  std::optional<double> per_million_samples;
  std::optional<double> per_million_tokens;
  std::optional<double> wasted_per_hour;  // paid for GPUs that wait for data or are not used
};

struct ConfidenceOf {
  // The error seen on the nearest measured cases; unknown when no case is near.
  std::optional<Ratio> median_absolute_error;
  std::optional<Ratio> p90_absolute_error;  // nine of ten of them are within
  std::int64_t cases = 0;
  std::string note;
};

struct ModelPlan {
  std::string name;
  std::string type;
  Parameters parameters;
  Parameters trainable_parameters;
  Parameters active_parameters;  // used by one token
  Flops forward_flops_per_sample;
  Flops backward_flops_per_sample;
  // The part of the forward pass that is attention's two products (causal: half of the scores).
  std::optional<Flops> attention_forward_flops_per_sample;
};

struct Plan {
  Job job;  // resolved
  Machine machine;
  ModelPlan model;
  VramPlan vram;
  RamPlan ram;
  PacePlan pace;
  FeedPlan feed;
  NumaPlacement numa;
  BalancePlan balance;
  std::optional<CostPlan> cost;
  ConfidenceOf vram_confidence, ram_confidence, pace_confidence;
  // true / false; nothing when a capacity is unknown.
  std::optional<bool> fits_vram, fits_ram;
  std::vector<std::string> warnings;

  // The NUMA node that is too small where the host as a whole is not.
  [[nodiscard]] const NodeLoad* short_node() const {
    const bool whole = !ram.capacity || ram.peak <= *ram.capacity;
    return fits_ram == false && whole ? numa.short_node() : nullptr;
  }
  [[nodiscard]] bool fits() const { return fits_vram.value_or(true) && fits_ram.value_or(true); }
};

}  // namespace steelyard::facts
