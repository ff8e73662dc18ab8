// The machine that a plan reads (schema steelyard.machine/1), from what was found on one.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "facts/machine.h"
#include "facts/measurements.h"
#include "facts/topology.h"

namespace steelyard::probe {

// `known`: what the catalogue says of the GPUs; its figures stand where nothing was measured, and
// measured ones go before them. `no_gpu`: the catalogue's entry for the host's own processors, for
// a machine without GPUs. `date` goes into the sources. Host memory and cores are those that the
// process may use: a plan for a job in the same container or Slurm job needs these.
[[nodiscard]] facts::Machine machine_of(const facts::Topology& topology,
                                        const std::optional<facts::Gpu>& known,
                                        const facts::Gpu& no_gpu, const std::string& date);

// What was measured of storage: "network" for folders that another machine holds, else "nvme", the
// names that a job's data.location uses.
void add_storage(facts::Machine& machine, const facts::Measurements& measurements,
                 const std::vector<facts::Mount>& mounts);

// What was measured of memory and of decoding; the rates of a machine file.
void add_rates(facts::Machine& machine, const facts::Measurements& measurements);

// The GPUs that this process can use and that are like the first of them: what a job would run on.
[[nodiscard]] std::int64_t alike_gpus(const facts::Topology& topology);
// The first that it can use; null where there is none.
[[nodiscard]] const facts::GpuDevice* first_gpu(const facts::Topology& topology);

}  // namespace steelyard::probe
