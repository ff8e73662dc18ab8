#include "rehearse/crew.h"

#include <algorithm>
#include <charconv>

#include "base/format.h"

namespace steelyard::rehearse {
namespace {

int weight(facts::RehearsalEnd end) {
  if (end == facts::RehearsalEnd::fault) return 3;
  if (end == facts::RehearsalEnd::signal) return 2;
  return 1;
}

std::vector<std::string> words_of(const Crew& crew, const Result<void>& own) {
  if (own) return {};
  const Error& error = own.error();
  return {std::to_string(static_cast<int>(error.code)),
          error.subject,
          error.found,
          error.accepted,
          error.hint,
          error.file,
          error.line ? std::to_string(*error.line) : std::string(),
          crew.host()};
}

int number(const std::string& text) {
  int value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// An error that does not depend on the process, such as a mistyped key: it needs no rank.
bool all_say_the_same(const std::vector<std::string>& all) {
  std::vector<std::string> first = unpacked(all.front());
  if (!first.empty()) first.pop_back();  // the host
  return std::all_of(all.begin(), all.end(), [&](const std::string& one) {
    std::vector<std::string> words = unpacked(one);
    if (!words.empty()) words.pop_back();
    return words == first;
  });
}

Error error_of(const std::vector<std::string>& words, std::size_t rank) {
  Error error{.code = static_cast<ErrorCode>(number(words[0])),
              .subject = "rank " + std::to_string(rank) + " on " + words[7] + ": " + words[1],
              .found = words[2],
              .accepted = words[3],
              .hint = words[4],
              .file = words[5]};
  if (!words[6].empty()) error.line = number(words[6]);
  return error;
}

}  // namespace

Agreed agreed(std::span<const Turn> turns) {
  Agreed all{.ready = true};
  for (std::size_t rank = 0; rank < turns.size(); ++rank) {
    const Turn& turn = turns[rank];
    all.ready = all.ready && turn.ready;
    if (rank == 0 || turn.wait > all.wait) {
      all.wait = turn.wait;
      all.slowest = rank;
    }
    if (turn.end && (!all.end || weight(*turn.end) > weight(*all.end))) all.end = turn.end;
  }
  return all;
}

Result<void> all_well(Crew* crew, const Result<void>& own, Seconds patience) {
  if (crew == nullptr) return own;
  STEELYARD_TRY(all, crew->gathered(packed(words_of(*crew, own)), patience));
  if (!own && all_say_the_same(all)) return own;
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    const std::vector<std::string> words = unpacked(all[rank]);
    if (!words.empty()) return fail(error_of(words, rank));
  }
  return {};
}

std::string packed(std::span<const std::string> texts) {
  std::string all;
  for (const std::string& text : texts) {
    all += std::to_string(text.size()) + ":" + text;
  }
  return all;
}

std::vector<std::string> unpacked(std::string_view packed) {
  std::vector<std::string> texts;
  while (!packed.empty()) {
    const std::size_t colon = packed.find(':');
    if (colon == std::string_view::npos) break;
    std::size_t length = 0;
    std::from_chars(packed.data(), packed.data() + colon, length);
    packed.remove_prefix(colon + 1);
    texts.emplace_back(packed.substr(0, length));
    packed.remove_prefix(std::min(length, packed.size()));
  }
  return texts;
}

}  // namespace steelyard::rehearse
