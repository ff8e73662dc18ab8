// Laying one tree of values over another: overrides of a model's configuration, a framework profile
// that extends another.
#pragma once

#include <string_view>

#include "facts/value.h"

namespace steelyard::catalog {

// Tables are merged member by member, everything else in `over` replaces what is there. A key of
// `over` that `base` does not have and that has dots leads into tables: "rope_scaling.factor".
void merge(facts::Value& base, const facts::Value& over);

// Sets the member that the dotted path names; tables on the way are made.
void set_path(facts::Value& base, std::string_view path, const facts::Value& value);

}  // namespace steelyard::catalog
