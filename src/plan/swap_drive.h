// The drive that states are swapped to (offload.* = nvme), and what a step moves over it and over
// the host link for tables: said with the plan, because it is rarely what a person expects.
#pragma once

#include <string>

#include "facts/machine.h"
#include "plan/plan.h"

namespace steelyard::plan {

struct SwapDrive {
  BytesPerSecond read, write;  // of a node
  std::string words;           // "nvme, 25.0 GB/s read and 12.0 GB/s written"; says what is assumed
};

// The machine's storage named "nvme", else the first that is no network; what it does not say is
// that of one usual drive (catalog/calibration/host.toml).
[[nodiscard]] SwapDrive swap_drive(const Request& request, const facts::Machine& machine);

// Adds to the pace's assumptions what a step of this program reads from and writes to the drive,
// and how rows of tables in host memory are counted.
void tell_swaps(const Request& request, const step::Program& program, facts::Plan& plan);

}  // namespace steelyard::plan
