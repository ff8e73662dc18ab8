#include "probe/interruption.h"

namespace steelyard::probe {

namespace {

volatile std::sig_atomic_t arrived = 0;  // the signal's number
bool handled = false;                    // an Interruption lives

void note(int signal) {
  arrived = signal;
}

}  // namespace

bool interrupted() {
  return arrived != 0;
}

Error interruption_error() {
  return {.code = ErrorCode::unreadable,
          .subject = "the measurement",
          .found = "a signal that ends it",
          .accepted = "time until it has finished",
          .hint = "What it had made is removed."};
}

Interruption::Interruption() : outermost_(!handled) {
  if (!outermost_) return;
  handled = true;
  arrived = 0;
  struct sigaction action {};
  action.sa_handler = note;
  sigemptyset(&action.sa_mask);
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], nullptr, &before_[i]);
    // Who ignores a signal (nohup) goes on ignoring it.
    if (before_[i].sa_handler != SIG_IGN) sigaction(kSignals[i], &action, nullptr);
  }
}

Interruption::~Interruption() {
  if (!outermost_) return;
  for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &before_[i], nullptr);
  handled = false;
  const int signal = arrived;
  arrived = 0;
  if (signal != 0) raise(signal);
}

}  // namespace steelyard::probe
