// A planner that can be worked by hand: a job's keys say how many seconds a step takes of what.
//
//   versions.compute   of a whole GPU         versions.cores   core seconds of the host
//   versions.read      of the storage          versions.copy    of the link from GPU to host
//   versions.vram_gib  of a GPU                versions.ram_gib per GPU and phase: "startup load
//   steady checkpoint" beyond 4 GiB of the system
//   versions.cache_gib the dataset: what of it the host keeps is not read
#pragma once

#include <algorithm>
#include <array>
#include <sstream>
#include <string>

#include "share/planner.h"

namespace steelyard::share {

constexpr std::int64_t kGib = std::int64_t{1} << 30;

inline double figure(const facts::Job& job, const char* key) {
  const facts::Value* value = job.versions.find(key);
  return value == nullptr ? 0.0 : std::stod(*value->as_text());
}

inline Bytes gib(double amount) {
  return Bytes(static_cast<std::int64_t>(amount * static_cast<double>(kGib)));
}

inline void fill_ram(const facts::Job& job, facts::Plan& plan) {
  std::istringstream phases(*job.versions.find("ram_gib")->as_text());
  for (std::size_t i = 0; i < facts::kRamPhases; ++i) {
    double each = 0.0;
    phases >> each;
    plan.ram.phases[i][facts::RamCategory::system] = gib(4.0);
    plan.ram.phases[i][facts::RamCategory::framework] =
        gib(each * static_cast<double>(*job.machine.gpus));
    if (plan.ram.phases[i].total() > plan.ram.peak) {
      plan.ram.peak = plan.ram.phases[i].total();
      plan.ram.peak_phase = static_cast<facts::RamPhase>(i);
    }
  }
  plan.ram.page_cache_wanted = gib(figure(job, "cache_gib"));
  plan.ram.capacity = plan.machine.host.memory;
  if (plan.ram.capacity) plan.fits_ram = plan.ram.peak <= *plan.ram.capacity;
}

// What is scarce makes the step longer; all of it overlaps with computing.
inline facts::PacePlan pace_of(const facts::Job& job, const facts::Machine& machine, Bytes free) {
  const double cached =
      figure(job, "cache_gib") <= 0.0
          ? 0.0
          : std::min(1.0, free.real() / (figure(job, "cache_gib") * static_cast<double>(kGib)));
  const double compute = figure(job, "compute") * 100e12 / machine.gpu.peak.bf16->value();
  const double step = std::max(
      {compute, figure(job, "read") * (1.0 - cached) * 10e9 / machine.storage.front().read->value(),
       figure(job, "cores") * 64.0 / static_cast<double>(*machine.host.cores),
       figure(job, "copy") * 50e9 / machine.gpu.host_link->value()});
  facts::PacePlan pace;
  pace.step = Seconds(step);
  pace.breakdown.compute = Seconds(compute);
  pace.breakdown.data_stall = Seconds(step - compute);
  return pace;
}

inline Result<facts::Plan> simple_plan(const facts::Job& job, const facts::Machine& machine,
                                       Depth depth) {
  facts::Plan plan;
  plan.job = job;
  if (!plan.job.data.workers) plan.job.data.workers = 4;
  if (!plan.job.data.location) plan.job.data.location = "nvme";
  plan.machine = machine;
  plan.vram.capacity = machine.gpu.memory;
  if (depth == Depth::full) {
    plan.vram.fullest.peak_device_used = gib(figure(job, "vram_gib"));
    plan.fits_vram = plan.vram.fullest.peak_device_used <= *machine.gpu.memory;
  }
  fill_ram(job, plan);
  const Bytes free =
      machine.host.memory ? std::max(Bytes(), *machine.host.memory - plan.ram.peak) : Bytes();
  plan.pace = pace_of(job, machine, free);
  return plan;
}

struct Simple {
  double compute = 1.0, read = 0.0, cores = 0.0, copy = 0.0, cache_gib = 0.0, vram_gib = 10.0;
  std::string ram_gib = "1 4 2 3";
};

inline facts::Job simple_job(const std::string& name, const Simple& simple) {
  facts::Job job;
  job.name = name;
  job.versions = facts::Value(facts::Object{{"compute", std::to_string(simple.compute)},
                                            {"read", std::to_string(simple.read)},
                                            {"cores", std::to_string(simple.cores)},
                                            {"copy", std::to_string(simple.copy)},
                                            {"cache_gib", std::to_string(simple.cache_gib)},
                                            {"vram_gib", std::to_string(simple.vram_gib)},
                                            {"ram_gib", simple.ram_gib}});
  return job;
}

// 8 GPUs of 80 GiB on two sockets, 64 cores, 256 GiB, 10 GB/s from storage, 50 GB/s to a GPU.
inline facts::Machine simple_machine() {
  const auto from = facts::Provenance::given;
  facts::Machine machine;
  machine.id = "server";
  machine.gpus = 8;
  machine.gpu.id = "card";
  machine.gpu.memory = {gib(80.0), from};
  machine.gpu.peak.bf16 = {FlopsPerSecond(100e12), from};
  machine.gpu.host_link = {BytesPerSecond(50e9), from};
  machine.host.memory = {gib(256.0), from};
  machine.host.cores = {64, from};
  machine.host.sockets = {2, from};
  facts::Storage storage;
  storage.name = "nvme";
  storage.read = {BytesPerSecond(10e9), from};
  machine.storage.push_back(storage);
  return machine;
}

}  // namespace steelyard::share
