// Measured cases (schema steelyard.cases/1) and what comparing plans with them gives
// (schema steelyard.validation/1).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/quantity.h"
#include "facts/enums.h"
#include "facts/job.h"

namespace steelyard::facts {

enum class VramMeter { allocated, reserved, device_used, unknown };
STEELYARD_ENUM_NAMES(VramMeter, "allocated", "reserved", "device_used", "unknown")

enum class FlopsConvention {
  six_n,
  six_n_attention,
  six_n_causal_attention,
  eight_n,
  megatron,
  unstated
};
STEELYARD_ENUM_NAMES(FlopsConvention, "6n", "6n+attention", "6n+causal-attention", "8n", "megatron",
                     "unstated")

// job: all processes of the job on a node, without the kernel and what else runs there.
enum class RamScope { node, process, job };
STEELYARD_ENUM_NAMES(RamScope, "node", "process", "job")

enum class CaseRamPhase { startup, load, steady, checkpoint };
STEELYARD_ENUM_NAMES(CaseRamPhase, "startup", "load", "steady", "checkpoint")

struct Measured {
  std::optional<Bytes> vram_peak_allocated, vram_peak_reserved, vram_peak_device_used;
  std::optional<Bytes> vram_steady_allocated;
  std::optional<Bytes> vram_low, vram_high;
  std::optional<VramMeter> vram_meter;
  std::optional<std::string> vram_rank;  // "last_stage"
  std::optional<Bytes> ram_peak, ram_process_peak, ram_low, ram_high;
  std::optional<RamScope> ram_scope;
  std::optional<CaseRamPhase> ram_phase;
  std::optional<Seconds> step_seconds;
  std::optional<TokensPerSecond> tokens_per_second_per_gpu;
  std::optional<SamplesPerSecond> samples_per_second;  // of the whole job
  // What a loop that only takes batches got, after the first epoch: the data path alone.
  std::optional<SamplesPerSecond> loader_samples_per_second;
  std::optional<double> tflops_per_gpu, hfu_tflops_per_gpu;  // 10^12 per second
  std::optional<Ratio> mfu, hfu;
  std::optional<FlopsConvention> flops_convention;
  std::optional<bool> fits, fits_ram;
};

struct Case {
  std::string id;
  std::string source;  // stem of the file it stands in: "torchtitan"
  Value job;           // parsed only when planned, so that one bad job fails one case
  Measured measured;
  std::string confidence;  // high | medium | low
  std::vector<std::string> assumptions;
};

struct CaseFile {
  std::string path;
  std::string source;
  std::string title;
  std::vector<Case> cases;
};

enum class QuantityGroup { vram, ram, pace, feed };
STEELYARD_ENUM_NAMES(QuantityGroup, "vram", "ram", "pace", "feed")

struct Comparison {
  std::string id, source, confidence;
  std::string quantity;
  QuantityGroup group = QuantityGroup::vram;
  double measured = 0.0;  // in the quantity's own base unit; a bracket's middle
  double predicted = 0.0;
  Ratio error;  // predicted / measured - 1; 0 inside a bracket
  // Why the printed figure cannot be true whatever was run; empty: it can. Such a figure is listed
  // and counts in no statistic.
  std::string impossible{};
};

struct UnsupportedCase {
  std::string id, source, reason;
};

struct ErrorSummary {
  std::string source;  // empty in `overall`
  QuantityGroup group = QuantityGroup::vram;
  std::string confidence;  // empty in `overall`
  std::int64_t cases = 0;
  Ratio median_absolute_error, p90_absolute_error, bias;
};

struct FitsConfusion {
  std::int64_t true_positive = 0, true_negative = 0, false_positive = 0, false_negative = 0;
};

// A job whose verdict is the other one than was seen.
struct WrongVerdict {
  std::string id, source, confidence;
  std::string quantity;         // fits or fits_ram
  bool measured = false;        // what was seen
  std::optional<Ratio> filled;  // planned share of the memory that the plan finds fuller
};

// Why predictions of some cases are far off, as a person found out (schema steelyard.notes/1).
struct CaseNote {
  std::vector<std::string> cases;       // ids; "*" stands for any characters
  std::vector<std::string> quantities;  // the same; empty: all
  std::string reason;
};

// Figures of one group beyond its bound that share a reason.
struct Outside {
  QuantityGroup group = QuantityGroup::vram;
  std::string reason;  // empty: none found yet
  std::int64_t figures = 0;
  Ratio worst;                     // with sign
  std::vector<std::string> cases;  // their ids, each once
};

struct Validation {
  std::vector<Comparison> cases;
  std::vector<UnsupportedCase> unsupported;
  std::vector<ErrorSummary> summary;
  std::vector<ErrorSummary> overall;
  FitsConfusion fits;
  std::vector<WrongVerdict> verdicts;
  std::vector<Outside> outside;
};

}  // namespace steelyard::facts
