#include "cli/measured_data.h"

#include <cmath>

#include "rehearse/data_look.h"

namespace steelyard::cli {
namespace {

std::optional<facts::DataKind> kind_of(const rehearse::Dataset& dataset) {
  switch (dataset.encoding) {
    case rehearse::Encoding::jpeg: return facts::DataKind::jpeg;
    case rehearse::Encoding::png: return facts::DataKind::png;
    case rehearse::Encoding::tokens: return facts::DataKind::tokens;
    case rehearse::Encoding::raw: break;
  }
  if (dataset.format == "npz") return facts::DataKind::npz;
  if (dataset.format == "parquet") return facts::DataKind::tabular;
  return std::nullopt;
}

facts::DataLayout layout_of(const rehearse::Dataset& dataset) {
  if (dataset.format == "tokens" || dataset.format == "npy") return facts::DataLayout::memmap;
  return dataset.records.size() > 2 * dataset.files.size() ? facts::DataLayout::tar
                                                           : facts::DataLayout::files;
}

}  // namespace

void measure_data(const rehearse::Dataset& dataset, bool all, facts::Job& job) {
  const rehearse::DataLook look = rehearse::look_at(dataset);
  facts::DataKeys& data = job.data;
  const auto put = [&](auto& field, auto value, const char* key) {
    if (field && !all) return;
    field = std::move(value);
    job.origins[key] = {facts::Origin::job, {}};
  };
  put(data.samples, look.records, "data.samples");
  put(data.bytes_per_sample, look.bytes, "data.bytes_per_sample");
  put(data.bytes_deviation, look.deviation, "data.bytes_deviation");
  if (const auto kind = kind_of(dataset)) put(data.kind, *kind, "data.kind");
  put(data.layout, layout_of(dataset), "data.layout");
  if (look.height && look.width && (all || data.stored_size.empty())) {
    data.stored_size = {std::llround(*look.height), std::llround(*look.width)};
    job.origins["data.stored_size"] = {facts::Origin::job, {}};
  }
}

}  // namespace steelyard::cli
