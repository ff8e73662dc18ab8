// This process's place among those that mpirun or srun has started. Only for files that are built
// with MPI.
#pragma once

#include <mpi.h>

#include <cstdlib>

namespace steelyard::cli {

// Set by Open MPI's mpirun, by MPICH's and by Slurm's srun with PMI-2, by srun with PMIx (to
// nothing else).
inline bool was_started_together() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

// From MPI_Init to MPI_Finalize. MPI's own handler ends all processes where a call fails
// (MPI_ERRORS_ARE_FATAL is the default), and mpirun where one of them is gone.
class MpiProcess {
 public:
  explicit MpiProcess(int threads) {
    MPI_Init_thread(nullptr, nullptr, threads, &given_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  }
  MpiProcess(const MpiProcess&) = delete;
  MpiProcess& operator=(const MpiProcess&) = delete;
  ~MpiProcess() { MPI_Finalize(); }

  [[nodiscard]] int size() const { return size_; }
  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int threads() const { return given_; }

 private:
  int size_ = 1, rank_ = 0, given_ = 0;
};

}  // namespace steelyard::cli
