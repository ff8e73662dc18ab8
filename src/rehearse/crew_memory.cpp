// Several processes of one host take memory of the same limit: each alone may fit, and all not.
#include <algorithm>
#include <charconv>
#include <map>
#include <string>

#include "base/format.h"
#include "rehearse/summary.h"

namespace steelyard::rehearse {
namespace {

struct OfHost {
  std::int64_t more = 0;             // that its processes will take
  std::optional<std::int64_t> room;  // the least that any of them was told
  std::int64_t processes = 0;
};

std::int64_t number(const std::string& text) {
  std::int64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

Error beyond(Bytes need, Bytes limit, const std::string& whose) {
  return {.code = ErrorCode::too_large,
          .subject = "the memory of the rehearsal",
          .found = to_text(need),
          .accepted = "at most " + to_text(limit) + ", the limit of " + whose,
          .hint = "a smaller --batch or --prefetch, fewer --accelerators or --workers"};
}

Result<void> all_fit(Crew& crew, const Forecast& own, Seconds patience) {
  // What it has (program and index) is in the limit already.
  const Bytes more = own.read_buffers + own.batches + own.decoding;
  std::vector<std::string> words{crew.host(), own.limited_by, std::to_string(more.value())};
  // --memory-limit is that of each process.
  if (own.limit && own.limited_by != kOwnLimit) {
    words.push_back(std::to_string((*own.limit - own.index - own.program).value()));
  }
  STEELYARD_TRY(all, crew.gathered(packed(words), patience));
  std::map<std::pair<std::string, std::string>, OfHost> hosts;
  for (const std::string& one : all) {
    const std::vector<std::string> said = unpacked(one);
    if (said.size() < 4) continue;
    OfHost& host = hosts[{said[0], said[1]}];
    host.more += number(said[2]);
    host.room = std::min(host.room.value_or(INT64_MAX), number(said[3]));
    ++host.processes;
  }
  for (const auto& [name, host] : hosts) {
    if (host.more <= *host.room) continue;
    Error error =
        beyond(Bytes(host.more), Bytes(*host.room), name.second + " besides what is held");
    error.subject =
        "the memory of " + std::to_string(host.processes) + " processes on " + name.first;
    return fail(std::move(error));
  }
  return {};
}

}  // namespace steelyard::rehearse
