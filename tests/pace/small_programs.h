// Programs, machines and constants with round figures, for tests whose arithmetic is done by hand.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "facts/constants.h"
#include "facts/job.h"
#include "facts/machine.h"
#include "step/program.h"

namespace steelyard::pace::test {

// 1000 TFLOP/s bf16, 2 TB/s memory, 500 GB/s links inside a node of 8, 50 GB/s between nodes.
inline facts::Machine round_machine() {
  using facts::Known;
  using facts::Provenance;
  auto flops = [](double tera) {
    return Known<FlopsPerSecond>(FlopsPerSecond(tera * 1e12), Provenance::catalogue);
  };
  auto bytes = [](double giga) {
    return Known<BytesPerSecond>(BytesPerSecond(giga * 1e9), Provenance::catalogue);
  };
  facts::Machine machine;
  machine.id = "round";
  machine.gpus = 8;
  machine.gpu.id = "round-gpu";
  machine.gpu.name = "Round GPU";
  machine.gpu.compute_capability = 9.0;
  machine.gpu.peak.fp32 = flops(100);
  machine.gpu.peak.tf32 = flops(500);
  machine.gpu.peak.fp16 = flops(1000);
  machine.gpu.peak.bf16 = flops(1000);
  machine.gpu.peak.fp8 = flops(2000);
  machine.gpu.memory_bandwidth = bytes(2000);
  machine.gpu.link = bytes(500);
  machine.gpu.host_link = bytes(64);
  machine.network_per_gpu = bytes(50);
  return machine;
}

// Half of every peak; no fixed costs, so that each test adds the one it is about.
inline facts::EfficiencyConstants halves() {
  facts::EfficiencyConstants constants;
  constants.gemm = Ratio(0.5);
  constants.attention_forward = Ratio(0.5);
  constants.attention_backward = Ratio(0.25);
  constants.cudnn_attention_forward = Ratio(1.0);
  constants.cudnn_attention_backward = Ratio(0.5);
  constants.memory = Ratio(0.5);
  constants.link = Ratio(0.5);
  constants.network = Ratio(0.5);
  constants.host_link = Ratio(0.5);
  constants.host_peer = Ratio(0.25);
  constants.gemm_vector = Ratio(0.5);
  constants.gemm_unaligned_batched = Ratio(0.25);
  return constants;
}

inline step::Work gemm(std::int64_t m, std::int64_t n, std::int64_t k,
                       facts::DType dtype = facts::DType::bf16) {
  step::Work work;
  work.kind = step::WorkKind::gemm;
  work.dtype = dtype;
  work.m = m;
  work.n = n;
  work.k = k;
  work.flops =
      Flops(2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k));
  work.traffic = Bytes((m * k + k * n + m * n) * facts::bytes_of(dtype));
  return work;
}

// Arithmetic alone: `seconds` at half of 1000 TFLOP/s.
inline step::Work compute_for(double seconds) {
  step::Work work = gemm(4096, 4096, 4096);  // whole tiles
  work.flops = Flops(seconds * 500e12);
  work.traffic = Bytes();
  return work;
}

// Traffic alone: `seconds` at half of 2 TB/s.
inline step::Work stream_for(double seconds, step::WorkKind kind = step::WorkKind::memory) {
  step::Work work;
  work.kind = kind;
  work.traffic = Bytes(checked_round(seconds * 1e12));
  return work;
}

// An all-gather among two ranks of a node that takes `seconds`: half of the buffer at 250 GB/s.
inline step::Communication send_for(double seconds, bool overlaps) {
  step::Communication communication;
  communication.kind = step::Collective::all_gather;
  communication.payload = Bytes(checked_round(seconds * 500e9));
  communication.ranks = 2;
  communication.ranks_per_node = 8;
  communication.overlaps = overlaps;
  return communication;
}

inline void append(step::Program& program, step::Body& body, step::Work work) {
  body.events.push_back({step::EventKind::work, static_cast<std::int32_t>(program.work.size())});
  program.work.push_back(std::move(work));
}

inline void append(step::Program& program, step::Body& body, step::Communication communication) {
  body.events.push_back(
      {step::EventKind::communicate, static_cast<std::int32_t>(program.communication.size())});
  program.communication.push_back(communication);
}

inline step::Phase phase_of(step::PhaseKind kind, std::vector<step::Body> bodies) {
  return {kind, std::move(bodies)};
}

inline facts::Job job_of(std::int64_t global_batch, std::int64_t nodes = 1, std::int64_t gpus = 8) {
  facts::Job job;
  job.train.global_batch = global_batch;
  job.train.precision = facts::Precision::bf16_mixed;
  job.machine.nodes = nodes;
  job.machine.gpus = gpus;
  return job;
}

}  // namespace steelyard::pace::test
