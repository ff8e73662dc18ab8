// What `steelyard ratio` says: for a mix of jobs, the host memory that each GPU needs beside it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/quantity.h"
#include "facts/enums.h"

namespace steelyard::facts {

// RAM per VRAM of the card, as a tier's rule of thumb has it.
struct RuleOfThumb {
  Ratio low{}, high{};
  bool open_ended = false;  // "and more"
};

// Jobs that stand for what a tier of machines is bought for: a file of catalog/tiers.
struct TierMix {
  struct Member {
    std::string file;     // of the job, relative to the tier's file
    double weight = 1.0;  // share of the jobs, any unit
  };
  std::string name{};   // "entry"
  std::string about{};  // what it stands for
  RuleOfThumb rule{};
  std::vector<Member> jobs{};
};

// One job of the mix.
struct MixedJob {
  std::string name{};
  double weight = 1.0;
  std::int64_t gpus = 1;   // of a node
  std::int64_t nodes = 1;  // that it asks for
};

// One job on one kind of GPU, on a host whose memory is not limited. Nothing but `refused` where it
// cannot be planned.
struct RatioCell {
  std::string refused{};
  bool fits = false;                  // the GPU's memory suffices
  Bytes vram_peak{};                  // of the fullest rank
  Bytes ram_per_gpu{};                // host memory at the fullest phase, system included
  Bytes page_cache_per_gpu{};         // more of it would keep model file and dataset in memory
  Bytes paged_out{};                  // managed memory that a full card leaves to the host, per GPU
  std::optional<RuleOfThumb> rule{};  // of the tier that the job on this card belongs to
};

// The mix on one kind of GPU.
struct GpuRatio {
  std::string gpu{};               // catalogue id
  Bytes vram{};                    // of one card
  std::vector<RatioCell> cells{};  // one for each job, in their order
  double fitting = 0.0;            // share of the mix by weight
  // Over the jobs that fit; nothing where none does. A server must hold the one that needs most.
  std::optional<Bytes> ram_most{}, ram_mean{}, with_page_cache{};  // per GPU
  std::optional<Ratio> ratio_most{}, ratio_mean{};                 // over the card's VRAM
  std::size_t neediest = 0;                                        // the job that needs most
  RuleOfThumb rule{};
};

enum class MachineForMix { enough, over_bought, ram_short, vram_short, refused, unknown };
STEELYARD_ENUM_NAMES(MachineForMix, "enough", "over_bought", "ram_short", "vram_short", "refused",
                     "unknown")

// One machine of the catalogue.
struct MachineRatio {
  std::string machine{};
  std::string gpu{};
  std::int64_t gpus = 1;
  std::optional<Bytes> ram_per_gpu{};  // installed
  std::optional<Bytes> needed{};       // by the neediest job, planned on this machine
  std::optional<Bytes> with_page_cache{};
  std::optional<Ratio> ratio_installed{}, ratio_needed{};
  std::optional<double> price_per_gpu_hour{};
  std::string currency{};
  MachineForMix verdict = MachineForMix::unknown;
  std::string why{};  // what is short, of which job
};

struct MixRatio {
  std::string mix{};  // the tier's name, or "the jobs given"
  std::string about{};
  std::optional<RuleOfThumb> rule{};  // of the tier; none: each card's own
  std::vector<MixedJob> jobs{};
  std::vector<GpuRatio> gpus{};          // from the smallest card to the largest
  std::vector<MachineRatio> machines{};  // what is enough first, each by price
};

}  // namespace steelyard::facts
