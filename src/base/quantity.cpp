#include "base/quantity.h"

namespace steelyard {

void throw_quantity_overflow() {
  throw QuantityOverflow("a quantity does not fit into 64 bits");
}

}  // namespace steelyard
