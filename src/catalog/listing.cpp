// The lines of `steelyard list`.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "base/format.h"
#include "catalog/catalog.h"
#include "catalog/files.h"

namespace steelyard::catalog {
namespace {

std::string joined(const std::vector<std::string>& parts) {
  std::string all;
  for (const std::string& part : parts) {
    if (part.empty()) continue;
    if (!all.empty()) all += ", ";
    all += part;
  }
  return all;
}

template <class Quantity>
std::string text_or(const facts::Known<Quantity>& known, const char* otherwise) {
  return known ? to_text(*known) : std::string(otherwise);
}

std::string peak_of(const facts::Gpu& gpu) {
  if (gpu.peak.bf16) return to_text(*gpu.peak.bf16) + " bf16";
  if (gpu.peak.fp16) return to_text(*gpu.peak.fp16) + " fp16";
  if (gpu.peak.fp32) return to_text(*gpu.peak.fp32) + " fp32";
  return "arithmetic unknown";
}

Entry gpu_line(const facts::Gpu& gpu) {
  return {.id = gpu.id,
          .summary = joined({gpu.name, text_or(gpu.memory, "memory unknown"),
                             text_or(gpu.memory_bandwidth, "bandwidth unknown"), peak_of(gpu)}),
          .confidence = gpu.confidence};
}

std::string ratio_of(const facts::Machine& machine) {
  if (!machine.host.memory || !machine.gpu.memory) return "RAM:VRAM unknown";
  const Ratio ratio = *machine.host.memory / (*machine.gpu.memory * machine.gpus);
  // Below one GiB per GiB the second digit tells a shortage from a catastrophe.
  return ratio.value() < 1.0 ? fmt::format("RAM:VRAM {:.2f}", ratio.value())
                             : fmt::format("RAM:VRAM {:.1f}", ratio.value());
}

std::string price_text(const facts::Machine& machine) {
  if (!machine.price) return "";
  return fmt::format("{:.2f} {}/h", machine.price->per_hour, machine.price->currency);
}

Entry machine_line(const facts::Machine& machine) {
  const std::string ram =
      machine.host.memory ? to_text(*machine.host.memory) + " RAM" : "RAM unknown";
  return {
      .id = machine.id,
      .summary = joined({machine.provider, fmt::format("{} x {}", machine.gpus, machine.gpu.name),
                         ram, ratio_of(machine), price_text(machine)}),
      .confidence = machine.confidence};
}

std::optional<std::int64_t> whole(const facts::Value& table, std::string_view key) {
  const facts::Value* value = table.find(key);
  if (value == nullptr || value->as_whole() == nullptr) return std::nullopt;
  return *value->as_whole();
}

std::string text(const facts::Value& table, std::string_view key) {
  const facts::Value* value = table.find(key);
  return value != nullptr && value->as_text() != nullptr ? *value->as_text() : "";
}

// Families name the same thing differently; the first key that is there counts.
std::optional<std::int64_t> first_whole(const facts::Value& config,
                                        std::initializer_list<std::string_view> keys) {
  for (const std::string_view key : keys) {
    if (auto value = whole(config, key)) return value;
  }
  return std::nullopt;
}

Entry model_line(const std::string& id, const facts::Value& content) {
  std::vector<std::string> parts;
  const facts::Value* found = content.find("config");
  const facts::Value config = found == nullptr ? facts::Value() : *found;
  // An entry that extends another has that one's type; its own name says more.
  const std::string type = text(config, "model_type");
  parts.push_back(type.empty() ? text(content, "name") : type);
  const auto count = first_whole(content, {"published_parameters", "parameters"});
  if (count) parts.push_back(to_text(Parameters(*count)) + " parameters");
  if (const auto layers =
          first_whole(config, {"num_hidden_layers", "n_layer", "num_layers", "n_layers"})) {
    parts.push_back(fmt::format("{} layers", *layers));
  }
  if (const auto hidden = first_whole(config, {"hidden_size", "n_embd", "d_model"})) {
    parts.push_back(fmt::format("hidden {}", *hidden));
  }
  return {.id = id, .summary = joined(parts), .confidence = text(content, "confidence")};
}

Entry dataset_line(const std::string& id, const facts::Value& content) {
  std::vector<std::string> parts = {text(content, "name"), text(content, "kind")};
  const auto samples = whole(content, "samples");
  if (samples) parts.push_back(grouped(*samples) + " samples");
  const facts::Value* size = content.find("bytes_per_sample");
  double bytes = 0.0;
  if (size != nullptr && size->as_real() != nullptr) bytes = *size->as_real();
  if (size != nullptr && size->as_whole() != nullptr) {
    bytes = static_cast<double>(*size->as_whole());
  }
  if (bytes > 0.0) parts.push_back(to_text(Bytes(checked_round(bytes))) + " each");
  if (bytes > 0.0 && samples) {
    const double all = bytes * static_cast<double>(*samples);
    if (all < 9e18) parts.push_back(to_text(Bytes(checked_round(all))) + " in all");
  }
  return {.id = id, .summary = joined(parts), .confidence = text(content, "confidence")};
}

std::string lower(std::string_view text) {
  std::string small(text);
  for (char& c : small) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return small;
}

bool matches(const Entry& entry, const std::string& wanted) {
  return lower(entry.id).find(wanted) != std::string::npos ||
         lower(entry.summary).find(wanted) != std::string::npos;
}

}  // namespace

Result<std::vector<Entry>> Catalog::list(Kind kind, std::string_view match) const {
  std::vector<Entry> entries;
  if (kind == Kind::gpus) {
    STEELYARD_TRY(content, files_->read("gpus.json"));
    STEELYARD_TRY(all, list_of(*content, "gpus", folder_ / "gpus.json"));
    for (const std::string& id : ids_of(*all)) {
      STEELYARD_TRY(found, gpu(id));
      entries.push_back(gpu_line(found));
    }
  } else if (kind == Kind::machines) {
    STEELYARD_TRY(content, files_->read("machines.json"));
    STEELYARD_TRY(all, list_of(*content, "machines", folder_ / "machines.json"));
    for (const std::string& id : ids_of(*all)) {
      STEELYARD_TRY(found, machine(id));
      entries.push_back(machine_line(found));
    }
  } else {
    const std::string below = kind == Kind::models ? "models" : "datasets";
    for (const std::string& id : file_ids(folder_ / below)) {
      STEELYARD_TRY(content, files_->read(fmt::format("{}/{}.json", below, id)));
      entries.push_back(kind == Kind::models ? model_line(id, *content)
                                             : dataset_line(id, *content));
    }
  }
  const std::string wanted = lower(match);
  std::erase_if(entries, [&](const Entry& entry) { return !matches(entry, wanted); });
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.id < b.id; });
  return entries;
}

}  // namespace steelyard::catalog
