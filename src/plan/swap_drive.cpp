#include "plan/swap_drive.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"

namespace steelyard::plan {
namespace {

const facts::Storage* local_drive(const facts::Machine& machine) {
  const facts::Storage* first = nullptr;
  for (const facts::Storage& storage : machine.storage) {
    if (storage.name == "nvme") return &storage;
    if (first == nullptr && storage.name != "network") first = &storage;
  }
  return first;
}

struct Moved {  // by one rank in a step
  Bytes read, written;
};

void add(const step::Program& program, const step::Body& body, std::int64_t times, Moved& moved) {
  for (const step::Event& event : body.events) {
    if (event.kind != step::EventKind::work) continue;
    const step::Work& work = program.work[static_cast<std::size_t>(event.index)];
    if (work.kind == step::WorkKind::drive_read) moved.read += work.traffic * times;
    if (work.kind == step::WorkKind::drive_write) moved.written += work.traffic * times;
  }
}

Moved moved_by(const step::Program& program) {
  Moved moved;
  for (std::size_t i = 0; i < program.step.size(); ++i) {
    const step::Pass& pass = program.step[i];
    const std::int64_t passes = checked_multiply(pass.repeat, program.updates.of(i));
    step::for_each_phase(pass, [&](const step::Phase& phase) {
      const std::int64_t phases = checked_multiply(passes, phase.repeat);
      for (const step::Body& body : phase.bodies) {
        add(program, body, checked_multiply(phases, body.repeat), moved);
      }
    });
  }
  return moved;
}

}  // namespace

SwapDrive swap_drive(const Request& request, const facts::Machine& machine) {
  const facts::HostConstants& usual = request.constants.host;
  const facts::Storage* drive = local_drive(machine);
  const bool reads = drive != nullptr && drive->read;
  const bool writes = drive != nullptr && drive->write;
  SwapDrive found{.read = reads ? *drive->read : usual.storage_read,
                  .write = writes ? *drive->write : usual.storage_write,
                  .words = drive != nullptr ? drive->name : "nvme"};
  found.words += fmt::format(", {} read{} and {} written{}", to_text(found.read),
                             reads ? "" : " (assumed: one drive)", to_text(found.write),
                             writes ? "" : " (assumed: one drive)");
  return found;
}

void tell_swaps(const Request& request, const step::Program& program, facts::Plan& plan) {
  const Moved moved = moved_by(program);
  const std::int64_t ranks = std::max<std::int64_t>(1, plan.job.machine.gpus.value_or(1));
  if (moved.read > Bytes() || moved.written > Bytes()) {
    plan.pace.assumptions.push_back(
        fmt::format("Swapping: a step reads {} from each node's drive and writes {} ({}), {}.",
                    to_text(moved.read * ranks), to_text(moved.written * ranks),
                    swap_drive(request, plan.machine).words,
                    plan.job.offload.pipelined ? "while the host steps" : "one after the other"));
  }
  if (plan.job.offload.embeddings == facts::EmbeddingOffload::uvm_caching &&
      !plan.job.offload.embedding_hits) {
    plan.pace.assumptions.push_back(
        "Tables: ids are taken to be drawn evenly, so the GPU's cache holds a fifth of the rows "
        "that are looked up; real ids repeat more (offload.embedding_hits).");
  }
}

}  // namespace steelyard::plan
