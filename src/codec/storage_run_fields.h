// Every key of `steelyard rehearse --generate --json` (schema steelyard.generated/1) and of
// `--checkpoint --json` (schema steelyard.checkpoint-run/1), once: written and described by it.
#pragma once

#include "codec/leaf.h"
#include "facts/checkpoint_run.h"
#include "facts/generated_run.h"

namespace steelyard::codec {

inline constexpr const char* kGeneratedSchema = "steelyard.generated/1";
inline constexpr const char* kCheckpointRunSchema = "steelyard.checkpoint-run/1";

inline constexpr auto generated_fields = [](auto& v, auto& run) {
  v.constant("schema", kGeneratedSchema);
  v.key("preset", run.preset, about("workload and accelerator"));
  v.key("folder", run.folder, about("where the files lie"));
  v.key("files", run.files, about("that were written"));
  v.key("samples", run.samples, about("in them"));
  v.key("bytes", run.bytes, about("of all records"));
  v.key("seconds", run.took, about("that it took"));
  v.key("bytes_per_s_per_accelerator", run.demand,
        about("that one accelerator reads at the preset's pace"));
  v.key("remarks", run.remarks, about("what to know of the data set"));
};

inline constexpr auto checkpoint_run_fields = [](auto& v, auto& run) {
  v.constant("schema", kCheckpointRunSchema);
  v.key("checkpoint", run.workload, about("workload"));
  v.key("whole_bytes", run.whole, about("of the real checkpoint"));
  v.key("bytes", run.bytes, about("that were written and read, each time"));
  v.key("ranks", run.ranks, about("that wrote"));
  v.key("threads", run.threads, about("that wrote and read"));
  v.key("write_seconds", run.writes, about("with fsync, one per round"));
  v.key("slowest_fsync_seconds", run.syncs, about("the slowest rank's, one per round"));
  v.key("read_seconds", run.reads, about("one per round"));
  v.key("cached_share", run.cached, about("of the data, in memory when it was read; the most"));
  v.key("caches_dropped", run.caches_dropped, about("between writing and reading"));
  v.key("memory_bytes", run.memory, about("of own buffers"));
  v.key("remarks", run.remarks, about("what to know of the figures"));
};

}  // namespace steelyard::codec
