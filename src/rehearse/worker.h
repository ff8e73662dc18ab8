// The second stage: a thread that makes samples of records, in place.
#pragma once

#include <atomic>
#include <functional>

#include "rehearse/batches.h"
#include "rehearse/read/reader.h"

namespace steelyard::rehearse {

struct WorkContext {
  const Dataset& dataset;
  const Order& order;
  ReadBuffers& buffers;
  BoundedQueue<ReadItem>& ready;
  Batches& batches;
  StageTime& time;
  Ledger& ledger;
  SampleShape shape;
  bool scaled_decode = true;
  std::uint64_t seed = 0;
  std::size_t sample_bytes = 0;
  std::function<void(std::uint64_t record, const Flaw& flaw)> flaw;
  std::function<void()> good;  // a sample was made
};

// How many bytes a sample of this data set takes in its batch.
[[nodiscard]] std::size_t sample_bytes_of(const Dataset& dataset, const SampleShape& shape);

// Until the queues are closed.
void run_worker(WorkContext& context);

}  // namespace steelyard::rehearse
