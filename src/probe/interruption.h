// SIGINT, SIGTERM and SIGHUP during a measurement: it ends soon, cleans up, and the signal is
// delivered again to whoever handled it before.
#pragma once

#include <array>

#include <csignal>

#include "base/error.h"

namespace steelyard::probe {

// Whether a signal came while an Interruption lives.
[[nodiscard]] bool interrupted();
// What a measurement that was cut short returns.
[[nodiscard]] Error interruption_error();

// Handles the signals from its making to its end. Of nested ones the outermost counts. At its end
// everything that a measurement made must be gone: with the default handling the process dies
// there.
class Interruption {
 public:
  Interruption();
  ~Interruption();
  Interruption(const Interruption&) = delete;
  Interruption& operator=(const Interruption&) = delete;

 private:
  static constexpr std::array<int, 3> kSignals = {SIGINT, SIGTERM, SIGHUP};
  bool outermost_ = false;
  std::array<struct sigaction, kSignals.size()> before_{};
};

}  // namespace steelyard::probe
