#include "rehearse/batches.h"

#include <algorithm>
#include <chrono>

namespace steelyard::rehearse {

Result<std::unique_ptr<Batches>> Batches::make(std::size_t count, std::size_t samples,
                                               std::size_t sample_bytes, Ledger& ledger,
                                               std::vector<int> nodes) {
  const Placement placement{.nodes = nodes, .turn = samples * sample_bytes};
  STEELYARD_TRY(memory,
                Region::make(count * samples * sample_bytes, Kind::batches, ledger, placement));
  return std::unique_ptr<Batches>(
      new Batches(std::move(memory), count, samples, sample_bytes, std::move(nodes)));
}

Batches::Batches(Region memory, std::size_t count, std::size_t samples, std::size_t sample_bytes,
                 std::vector<int> nodes)
    : memory_(std::move(memory)),
      samples_(samples),
      sample_bytes_(sample_bytes),
      nodes_(std::move(nodes)),
      written_(count, 0) {
  for (std::size_t i = count; i > 0; --i) free_.push_back(i - 1);
}

std::optional<Batches::Place> Batches::claim(Nanoseconds& waited) {
  std::unique_lock lock(mutex_);
  while (!closed_ && !filling_) {
    if (!free_.empty()) {
      filling_ = free_.back();
      free_.pop_back();
      claimed_ = 0;
      break;
    }
    const Nanoseconds begin = now();
    room_.wait(lock);
    waited += now() - begin;
  }
  if (closed_) return std::nullopt;
  const std::size_t batch = *filling_;
  const std::size_t index = claimed_++;
  if (claimed_ == samples_) filling_.reset();
  return Place{.batch = batch,
               .sample = memory_.data() + (batch * samples_ + index) * sample_bytes_};
}

void Batches::written(const Place& place) {
  {
    const std::scoped_lock lock(mutex_);
    if (++written_[place.batch] < samples_) return;
    written_[place.batch] = 0;
    full_.push_back({.batch = place.batch, .since = now()});
  }
  full_changed_.notify_all();
}

Batches::Full Batches::pick(std::size_t accelerator) {
  auto chosen = full_.begin();
  if (accelerator < nodes_.size()) {
    const auto near = std::find_if(full_.begin(), full_.end(), [&](const Full& full) {
      return nodes_[full.batch % nodes_.size()] == nodes_[accelerator];
    });
    if (near != full_.end()) chosen = near;
  }
  const Full full = *chosen;
  full_.erase(chosen);
  return full;
}

std::optional<Batches::Full> Batches::take(std::size_t accelerator) {
  std::optional<Full> full;
  {
    std::unique_lock lock(mutex_);
    const std::uint64_t ticket = next_ticket_++;
    full_changed_.wait(lock, [&] { return closed_ || (ticket == served_ && !full_.empty()); });
    if (closed_) return std::nullopt;
    ++served_;
    full = pick(accelerator);
  }
  full_changed_.notify_all();  // the next in line
  return full;
}

std::optional<Batches::Full> Batches::take_within(Nanoseconds most, std::size_t accelerator) {
  std::unique_lock lock(mutex_);
  full_changed_.wait_for(lock, std::chrono::nanoseconds(most),
                         [&] { return closed_ || !full_.empty(); });
  if (closed_ || full_.empty()) return std::nullopt;
  return pick(accelerator);
}

void Batches::give_back(std::size_t batch) {
  {
    const std::scoped_lock lock(mutex_);
    free_.push_back(batch);
  }
  room_.notify_all();
}

void Batches::close() {
  {
    const std::scoped_lock lock(mutex_);
    closed_ = true;
  }
  room_.notify_all();
  full_changed_.notify_all();
}

}  // namespace steelyard::rehearse
