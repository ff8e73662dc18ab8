// The processes that mpirun or srun has started together to rehearse one job.
#pragma once

#include <memory>
#include <string>

#include "rehearse/crew.h"

namespace steelyard::cli {

class RehearsalCrew : public rehearse::Crew {
 public:
  // Ends all processes at once, this one too, with the status of bad input: when one is lost, no
  // orderly end is left (MPI_Finalize would wait for it).
  [[noreturn]] virtual void abandon() = 0;
  // Whether a process did not come; then nothing but `abandon` may follow.
  [[nodiscard]] virtual bool lost_one() const = 0;
};

// Nothing where this process was started alone, or where the program was built without MPI. Errors:
// not_supported where the MPI library lets only its first thread speak.
[[nodiscard]] Result<std::unique_ptr<RehearsalCrew>> rehearsal_crew();

// What to say when processes were started together and cannot know of each other; empty: nothing.
[[nodiscard]] std::string alone_remark();

}  // namespace steelyard::cli
