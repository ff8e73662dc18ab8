#include "cli/mpi_crew.h"

#ifdef STEELYARD_MPI

#include <numeric>
#include <string>
#include <vector>

#include "cli/mpi_process.h"

namespace steelyard::cli {
namespace {

class MpiCrew : public search::Crew {
 public:
  [[nodiscard]] std::size_t size() const override {
    return static_cast<std::size_t>(process_.size());
  }
  [[nodiscard]] std::size_t rank() const override {
    return static_cast<std::size_t>(process_.rank());
  }

  [[nodiscard]] std::vector<std::string> gathered(const std::string& own) override {
    const std::size_t many = size();
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
  MpiProcess process_{MPI_THREAD_FUNNELED};
};

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
