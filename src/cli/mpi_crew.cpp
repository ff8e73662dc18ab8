#include "cli/mpi_crew.h"

#ifdef STEELYARD_MPI

#include <mpi.h>

#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

namespace steelyard::cli {
namespace {

// MPI's own handler ends all processes where a call fails (MPI_ERRORS_ARE_FATAL is the default),
// and mpirun where one of them is gone.
class MpiCrew : public search::Crew {
 public:
  MpiCrew() {
    int given = 0;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &given);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  }
  ~MpiCrew() override { MPI_Finalize(); }

  [[nodiscard]] std::size_t size() const override { return static_cast<std::size_t>(size_); }
  [[nodiscard]] std::size_t rank() const override { return static_cast<std::size_t>(rank_); }

  [[nodiscard]] std::vector<std::string> gathered(const std::string& own) override {
    const auto many = static_cast<std::size_t>(size_);
    const int length = static_cast<int>(own.size());
    std::vector<int> lengths(many), begins(many);
    MPI_Allgather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, MPI_COMM_WORLD);
    std::exclusive_scan(lengths.begin(), lengths.end(), begins.begin(), 0);
    std::string all(static_cast<std::size_t>(begins.back() + lengths.back()), '\0');
    MPI_Allgatherv(own.data(), length, MPI_CHAR, all.data(), lengths.data(), begins.data(),
                   MPI_CHAR, MPI_COMM_WORLD);
    std::vector<std::string> parts;
    for (std::size_t i = 0; i < many; ++i) {
      parts.push_back(
          all.substr(static_cast<std::size_t>(begins[i]), static_cast<std::size_t>(lengths[i])));
    }
    return parts;
  }

 private:
  int size_ = 1, rank_ = 0;
};

// Set by Open MPI's mpirun, by MPICH's, and by Slurm's srun with PMI (to nothing else).
bool was_started_together() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

}  // namespace

std::unique_ptr<search::Crew> crew_of_this_process() {
  if (!was_started_together()) return nullptr;
  return std::make_unique<MpiCrew>();
}

}  // namespace steelyard::cli

#else

namespace steelyard::cli {

std::unique_ptr<search::Crew> crew_of_this_process() {
  return nullptr;
}

}  // namespace steelyard::cli

#endif
