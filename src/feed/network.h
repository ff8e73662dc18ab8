// The data path of one node as a closed queueing network, and its solution.
//
// Customers are the loader processes: each builds one batch at a time, sample after sample. A
// sample waits for the answer of the storage (a delay), for its bytes (one server that all readers
// of the node share) and for the cores (shared too). Finished batches are handed over in the order
// in which they were asked for, as PyTorch's DataLoader does: a rank has workers x prefetch batches
// in flight and asks for the next one when its GPU takes one. docs/model/data-path.md.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace steelyard::feed {

// Seconds are of one sample as a rank loads it; all ranks are alike.
struct Network {
  std::int64_t ranks = 1;
  std::int64_t workers = 1;   // of a rank, at least 1
  std::int64_t prefetch = 2;  // batches ahead per worker, at least 1
  std::int64_t batch = 1;     // samples
  double latency = 0.0;       // of the storage, whatever others do
  double storage = 0.0;       // of the storage alone, one after the other
  double compute = 0.0;       // on one core
  // What each further running worker of the rank adds to `compute` (at most `compute`).
  double contention = 0.0;
  double cores = std::numeric_limits<double>::infinity();  // that the node's workers share
  double hand_over = 0.0;  // in the rank's own process and over its link: the slower of them
  double consume = 0.0;    // on the GPU; 0: takes what comes
  double spread = 0.0;     // standard deviation over mean of what one sample takes
};

struct Flow {
  double rate = 0.0;         // samples per second, all ranks
  double utilization = 1.0;  // share of the time in which the GPU computes, once it has begun
};

// Samples per second of 1, 2, ... ranks x workers customers that are never held up by a full
// buffer: storage and cores are shared, latency is not (BCMP: exact for any distribution).
[[nodiscard]] std::vector<double> unblocked_rates(const Network& network);

[[nodiscard]] Flow solve(const Network& network);

}  // namespace steelyard::feed
