// Every key of the measurements in `steelyard probe --json` (schema steelyard.probe/1). Rates are
// in base units per second; low and high are the least and the largest of the runs.
#pragma once

#include "codec/leaf.h"
#include "codec/rule.h"
#include "facts/measurements.h"

namespace steelyard::codec {

inline constexpr auto measured_fields = [](auto& v, auto& m) {
  v.key("median", m.median, about("of the runs, per second"));
  v.key("low", m.low, about("the least"));
  v.key("high", m.high, about("the largest"));
  const std::int64_t runs = m.runs;
  v.key("runs", runs, about("0: not measured, the warning says why"));
  v.key("how", m.how, about("it was measured"));
  v.key("warning", m.warning, about("why not to believe it; null: nothing known"));
};

inline constexpr auto conditions_fields = [](auto& v, auto& c) {
  v.key("threads", c.threads, about("hardware threads that could be used"));
  v.key("load_average", c.load_average, about("of the last minute, before"));
  v.key("governor", c.governor, about("of the frequency; empty: none shown"));
  v.key("transparent_huge_pages", c.transparent_huge_pages, about("as they were set"));
  v.key("warnings", c.warnings, about("that hold for all figures"));
};

inline constexpr auto memory_bandwidth_fields = [](auto& v, auto& b) {
  v.key("core_node", b.core_node, about("NUMA node of the threads"));
  v.key("memory_node", b.memory_node, about("NUMA node of the memory"));
  v.key("threads", b.threads, about("that ran"));
  v.table("read_bytes", b.read, measured_fields, about("per second"));
  v.table("write_bytes", b.write, measured_fields, about("per second, streaming stores"));
  v.table("copy_bytes", b.copy, measured_fields, about("per second, read and written"));
  v.table("triad_bytes", b.triad, measured_fields, about("per second, read and written"));
};

inline constexpr auto memory_measurements_fields = [](auto& v, auto& m) {
  v.key("instructions", m.instructions, about("avx512, avx2 or plain"));
  v.key("buffer_bytes", m.buffer, about("that all threads walk"));
  v.key("last_level_cache_bytes", m.last_level_cache, about("of all processors; 0: unknown"));
  v.list("rates", m.rates, memory_bandwidth_fields, about("by nodes and threads"));
};

inline constexpr auto host_rate_fields = [](auto& v, auto& h) {
  v.key("threads", h.threads, about("that ran"));
  v.table("byte_scan_bytes", h.byte_scan, measured_fields, about("per second"));
  v.table("memory_copy_bytes", h.memory_copy, measured_fields, about("copied per second"));
  v.table("first_touch_bytes", h.first_touch, measured_fields, about("per second, small pages"));
  v.table("first_touch_huge_bytes", h.first_touch_huge, measured_fields,
          about("per second, huge pages asked for"));
  v.table("lock_pages_bytes", h.lock_pages, measured_fields, about("per second, mmap and mlock"));
};

inline constexpr auto name_of_work = [](auto& v, auto& w) {
  v.made(
      "work", [&] { return facts::Value(facts::name_of(w.work)); },
      [] { return Leaf<std::string>::schema({}); });
};

inline constexpr auto image_rate_fields = [](auto& v, auto& r) {
  name_of_work(v, r);
  v.key("width", r.width, about("pixels of the stored image"));
  v.key("height", r.height, about("pixels of the stored image"));
  v.key("stored_bytes", r.compressed, about("of one stored image"));
  v.key("threads", r.threads, about("that ran"));
  v.table("images", r.images, measured_fields, about("per second"));
  v.key("stored_bytes_per_second", r.compressed_rate, about("taken in"));
  v.key("pixels_per_second", r.pixel_rate, about("of the stored image"));
};

inline constexpr auto decode_model_fields = [](auto& v, auto& m) {
  name_of_work(v, m);
  v.key("seconds_per_pixel", m.per_pixel, about("on one core"));
  v.key("seconds_per_byte", m.per_byte, about("stored, on one core"));
  v.key("worst_error", m.worst_error, about("of a measured point, as a share"));
  const std::int64_t points = m.points;
  v.key("points", points, about("that it was fitted to"));
};

inline constexpr auto image_measurements_fields = [](auto& v, auto& m) {
  v.key("source", m.source, about("synthetic, or the folder"));
  v.key("decoder", m.decoder, about("library and version"));
  v.list("rates", m.rates, image_rate_fields, about("by work, size and threads"));
  v.list("models", m.models, decode_model_fields, about("time of one image"));
};

inline constexpr auto storage_rate_fields = [](auto& v, auto& r) {
  v.made(
      "pattern", [&] { return facts::Value(facts::name_of(r.pattern)); },
      [] { return Leaf<std::string>::schema({}); });
  v.key("request_bytes", r.request, about("of one request, or one small file"));
  v.key("depth", r.depth, about("requests at once"));
  v.table("bytes", r.rate, measured_fields, about("per second"));
  v.key("operations_per_second", r.operations, about("requests, or files"));
  v.key("latency_median_seconds", r.latency_median, about("of one request; 0: not taken"));
  v.key("latency_p99_seconds", r.latency_p99, about("of one request; 0: not taken"));
};

inline constexpr auto storage_measurements_fields = [](auto& v, auto& s) {
  v.key("path", s.path, about("folder that was measured"));
  v.key("file_system", s.file_system, about("ext4, ..."));
  v.key("engine", s.engine, about("io_uring or threads"));
  v.key("direct", s.direct, about("past the page cache"));
  v.key("test_file_bytes", s.test_file, about("written for it, gone again"));
  v.key("free_before_bytes", s.free_before, about("of the file system"));
  v.list("rates", s.rates, storage_rate_fields, about("by pattern, request and depth"));
  v.key("warnings", s.warnings, about("why it may be a cache"));
};

inline constexpr auto measurements_fields = [](auto& v, auto& m) {
  v.table("conditions", m.conditions, conditions_fields, about("of the moment"));
  v.optional_table("memory", m.memory, memory_measurements_fields, about("null: not asked for"));
  v.list("host", m.host, host_rate_fields, about("on one core, on all"));
  v.optional_table("images", m.images, image_measurements_fields, about("null: not asked for"));
  v.list("storage", m.storage, storage_measurements_fields, about("by folder"));
  v.key("took_seconds", m.took, about("all of it"));
};

}  // namespace steelyard::codec
