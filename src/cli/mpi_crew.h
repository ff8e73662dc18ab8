// The processes that mpirun has started together.
#pragma once

#include <memory>

#include "search/crew.h"

namespace steelyard::cli {

// Nothing where this process was started alone, or where the program was built without MPI. A
// process of the crew that is lost ends all of them, with a status that is not 0.
[[nodiscard]] std::unique_ptr<search::Crew> crew_of_this_process();

}  // namespace steelyard::cli
