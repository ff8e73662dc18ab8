#include "report/timeline_data.h"

#include <fmt/format.h>

#include <map>

namespace steelyard::report {
namespace {

// Each text once.
class Strings {
 public:
  std::size_t operator()(const std::string& text) {
    const auto [entry, fresh] = index_.try_emplace(text, index_.size());
    if (fresh) all_.push_back(json_text(text));
    return entry->second;
  }
  [[nodiscard]] std::string json() const { return fmt::format("[{}]", fmt::join(all_, ",")); }

 private:
  std::map<std::string, std::size_t> index_;
  std::vector<std::string> all_;
};

std::string live_json(const facts::VramBytes& live) {
  std::vector<std::int64_t> bytes;
  for (const Bytes part : live.bytes) bytes.push_back(part.value());
  return fmt::format("[{}]", fmt::join(bytes, ","));
}

std::string rank_json(const facts::RankMemory& rank, const std::vector<facts::Moment>& moments,
                      Strings& strings) {
  std::vector<std::size_t> phases, layers, operators;
  std::vector<std::string> live;
  for (const facts::Moment& moment : moments) {
    phases.push_back(strings(moment.phase));
    layers.push_back(strings(moment.layer));
    operators.push_back(strings(moment.operation));
    live.push_back(live_json(moment.live));
  }
  return fmt::format(
      R"({{"kind":{},"ranks":{},"phase":[{}],"layer":[{}],"operator":[{}],"live":[{}]}})",
      json_text(rank.kind), rank.ranks, fmt::join(phases, ","), fmt::join(layers, ","),
      fmt::join(operators, ","), fmt::join(live, ","));
}

}  // namespace

std::string json_text(std::string_view text) {
  std::string json = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      json += '\\';
      json += c;
    } else if (byte < 0x20 || c == '<' || byte == 0x7f) {
      json += fmt::format("\\u{:04x}", byte);
    } else {
      json += c;
    }
  }
  return json + '"';
}

std::string timeline_data(const facts::Plan& plan) {
  Strings strings;
  std::vector<std::string> ranks, categories;
  for (std::size_t i = 0; i < plan.vram.timelines.size(); ++i) {
    ranks.push_back(rank_json(plan.vram.ranks[i], plan.vram.timelines[i], strings));
  }
  for (const std::string_view name : facts::EnumNames<facts::VramCategory>::values) {
    categories.push_back(json_text(name));
  }
  const std::string capacity =
      plan.vram.capacity ? std::to_string(plan.vram.capacity->value()) : "null";
  return fmt::format(R"({{"job":{},"capacity":{},"fullest":{},"categories":[{}],"strings":{},)"
                     R"("ranks":[{}]}})",
                     json_text(plan.job.name), capacity, json_text(plan.vram.fullest.kind),
                     fmt::join(categories, ","), strings.json(), fmt::join(ranks, ","));
}

}  // namespace steelyard::report
