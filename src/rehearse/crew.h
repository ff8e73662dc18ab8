// Processes that rehearse one synchronous job together: a step of any begins when all have their
// batches. Who connects them (MPI, or threads in a test) implements `Crew`; this room does not
// know.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "facts/rehearsal.h"
#include "rehearse/clock.h"

namespace steelyard::rehearse {

// What one process says before a step, and now and then while it waits for its batches: silence is
// a process that is lost.
struct Turn {
  bool ready = false;                        // it has its batches
  Nanoseconds wait = 0;                      // since its last step ended, until it had (or now)
  std::optional<facts::RehearsalEnd> end{};  // it wants to end
};

// What follows for all. Durations, no points in time: clocks of nodes differ.
struct Agreed {
  bool ready = false;       // the step begins, `wait` after the end of the last one
  Nanoseconds wait = 0;     // the longest
  std::size_t slowest = 0;  // whose that was
  std::optional<facts::RehearsalEnd> end{};
};
// A fault goes before a signal, a signal before the rest. turns: of all, in the order of ranks.
[[nodiscard]] Agreed agreed(std::span<const Turn> turns);

class Crew {
 public:
  Crew() = default;
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  virtual ~Crew() = default;

  [[nodiscard]] virtual std::size_t size() const = 0;
  [[nodiscard]] virtual std::size_t rank() const = 0;
  [[nodiscard]] virtual std::string host() const = 0;

  // All processes call these in the same order, each from one thread at a time. Errors: unreadable
  // when a process does not come within `patience`; who, where that is known. Never waits longer.
  [[nodiscard]] virtual Result<Agreed> agree(const Turn& own, Seconds patience) = 0;
  // What each gives, in the order of ranks.
  [[nodiscard]] virtual Result<std::vector<std::string>> gathered(const std::string& own,
                                                                  Seconds patience) = 0;
};

// Whether all are well so far: else the error of the first who is not, with its rank and host, the
// same for all. Without a crew: the own.
[[nodiscard]] Result<void> all_well(Crew* crew, const Result<void>& own, Seconds patience);

// Texts in one, for `gathered`.
[[nodiscard]] std::string packed(std::span<const std::string> texts);
[[nodiscard]] std::vector<std::string> unpacked(std::string_view packed);

}  // namespace steelyard::rehearse
