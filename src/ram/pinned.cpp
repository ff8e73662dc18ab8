#include "ram/pinned.h"

#include "base/power_of_two.h"
#include "ram/ram.h"

namespace steelyard::ram {

Bytes pinned(Bytes requested) {
  return next_power_of_two(requested);
}

Bytes pinned_in_pieces(Bytes total) {
  return total * Ratio(4.0 / 3.0);
}

Bytes page_locked(Bytes requested, bool pin) {
  return pin ? pinned(requested) : requested;
}

Bytes page_locked_in_pieces(Bytes total, bool pin) {
  return pin ? pinned_in_pieces(total) : total;
}

}  // namespace steelyard::ram
