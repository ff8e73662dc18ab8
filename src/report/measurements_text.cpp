// What `steelyard probe` measured, for a person.
#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "base/text_table.h"
#include "report/probe_text.h"

namespace steelyard::report {
namespace {

using facts::Repeated;

std::string apart(int runs, double median, double low, double high) {
  if (runs == 1) return "one run";
  if (!(median > 0)) return "";
  return fmt::format("{} apart", percent(Ratio((high - low) / median)));
}

// A table of figures, and below it the warnings, each once.
class Part {
 public:
  Part(const Paint& paint, std::string title)
      : paint_(paint), title_(std::move(title)), table_({{""}, {"", Align::right}, {""}, {""}}) {}

  template <class Quantity>
  void figure(std::string name, const Repeated<Quantity>& m, const std::string& more = "") {
    if (m.runs > 0) {
      table_.add({std::move(name), to_text(m.median),
                  apart(m.runs, m.median.value(), m.low.value(), m.high.value()), more});
    }
    if (m.warning) warn(*m.warning);
  }

  void row(std::string name, std::string value, std::string how) {
    table_.add({std::move(name), std::move(value), "", std::move(how)});
  }

  void warn(const std::string& warning) {
    if (std::find(warnings_.begin(), warnings_.end(), warning) == warnings_.end()) {
      warnings_.push_back(warning);
    }
  }

  [[nodiscard]] std::string text() const {
    if (table_.empty() && warnings_.empty()) return "";
    std::string text = paint_.ink(title_, Ink::strong) + "\n" + table_.text(2);
    for (const std::string& warning : warnings_) {
      std::string sign = "! ";
      for (const std::string& line : wrapped(paint_.outside(warning), paint_.columns() - 4)) {
        text += "  " + sign + line + "\n";
        sign = "  ";
      }
    }
    return text + "\n";
  }

 private:
  const Paint& paint_;
  std::string title_;
  TextTable table_;
  std::vector<std::string> warnings_;
};

std::string threads_text(std::int64_t threads) {
  return fmt::format("{} thread{}", threads, threads == 1 ? "" : "s");
}

std::string memory_section(const facts::MemoryMeasurements& memory, const Paint& paint) {
  Part part(paint, fmt::format("Memory bandwidth ({}, {} of buffers)", memory.instructions,
                               to_text(memory.buffer)));
  for (const facts::MemoryBandwidth& rate : memory.rates) {
    const std::string where = rate.core_node == rate.memory_node
                                  ? fmt::format("node {}", rate.core_node)
                                  : fmt::format("node {} to {}", rate.core_node, rate.memory_node);
    const std::string on = where + ", " + threads_text(rate.threads);
    part.figure("read", rate.read, on);
    part.figure("write", rate.write, on);
    part.figure("copy", rate.copy, on);
    part.figure("triad", rate.triad, on);
  }
  return part.text();
}

std::string host_section(const std::vector<facts::HostRate>& rates, const Paint& paint) {
  Part part(paint, "Bytes in host memory");
  for (const facts::HostRate& rate : rates) {
    const std::string on = threads_text(rate.threads);
    part.figure("byte scan", rate.byte_scan, on);
    part.figure("memory copy", rate.memory_copy, on);
    part.figure("first touch, small pages", rate.first_touch, on);
    part.figure("first touch, huge pages", rate.first_touch_huge, on);
    part.figure("locked pages", rate.lock_pages, on);
  }
  return part.text();
}

std::string images_section(const facts::ImageMeasurements& images, const Paint& paint) {
  Part part(paint, fmt::format("Images ({}, {})", paint.outside(images.source),
                               paint.outside(images.decoder)));
  for (const facts::ImageRate& rate : images.rates) {
    const std::string size = rate.compressed.value() > 0 ? ", " + to_text(rate.compressed) : "";
    part.figure(fmt::format("{} {}{}{}{}", facts::name_of(rate.work), rate.width,
                            paint.signs().times, rate.height, size),
                rate.images, threads_text(rate.threads));
  }
  for (const facts::DecodeModel& model : images.models) {
    part.row(fmt::format("{} on one core", facts::name_of(model.work)),
             fmt::format("{:.3g} ns/pixel + {:.3g} ns/byte", model.per_pixel.value() * 1e9,
                         model.per_byte.value() * 1e9),
             fmt::format("within {} of {} points", percent(model.worst_error), model.points));
  }
  return part.text();
}

std::string storage_section(const facts::StorageMeasurements& storage, const Paint& paint) {
  Part part(paint,
            fmt::format("Storage below {} ({}, {}{})", paint.outside(storage.path),
                        storage.file_system, storage.engine, storage.direct ? ", direct" : ""));
  for (const facts::StorageRate& rate : storage.rates) {
    std::string how = fmt::format("{} at a time, depth {}", to_text(rate.request), rate.depth);
    if (rate.operations.value() > 0) how += fmt::format(", {}/s", compact(rate.operations.value()));
    if (rate.latency_p99.value() > 0) {
      how += fmt::format(", 99 % within {}", to_text(rate.latency_p99));
    }
    part.figure(facts::name_of(rate.pattern), rate.rate, how);
  }
  for (const std::string& warning : storage.warnings) part.warn(warning);
  return part.text();
}

}  // namespace

std::string measurements_text(const facts::Measurements& measurements, const Style& style) {
  const Paint paint(style);
  std::string text;
  if (measurements.memory) text += memory_section(*measurements.memory, paint);
  text += host_section(measurements.host, paint);
  if (measurements.images) text += images_section(*measurements.images, paint);
  for (const facts::StorageMeasurements& one : measurements.storage) {
    text += storage_section(one, paint);
  }
  Part conditions(paint, fmt::format("Measured in {}", to_text(measurements.took)));
  for (const std::string& warning : measurements.conditions.warnings) conditions.warn(warning);
  return text + conditions.text();
}

}  // namespace steelyard::report
