// Where a value came from. Every number knows its origin; unknown is not zero.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "facts/enums.h"

namespace steelyard::facts {

// Origin of a value in a resolved job.
enum class Origin {
  fallback,  // printed "default": what a practitioner would expect
  job,       // the job file or --set
  import,    // another tool's configuration named in [import]
  model,     // the model's own configuration
  machine,   // the machine's description
};

// How sure a figure of the world is.
enum class Provenance {
  unknown,    // no value
  measured,   // on this machine or in a recorded run
  catalogue,  // a data file with a source
  derived,    // computed from other figures by a rule of the documentation
  assumed,    // a stated assumption, no source for this very case
  given,      // the person said so in the job
};
STEELYARD_ENUM_NAMES(Provenance, "unknown", "measured", "catalogue", "derived", "assumed", "given")

// A figure that may be unknown, and how it is known.
template <class T>
struct Known {
  std::optional<T> value;
  Provenance from = Provenance::unknown;
  std::string note;  // source or reason; may be empty

  Known() = default;
  Known(T known, Provenance provenance, std::string why = {})
      : value(std::move(known)), from(provenance), note(std::move(why)) {}

  [[nodiscard]] explicit operator bool() const { return value.has_value(); }
  [[nodiscard]] const T& operator*() const { return *value; }
  [[nodiscard]] const T* operator->() const { return &*value; }
};

}  // namespace steelyard::facts
