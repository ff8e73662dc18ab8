// The best-fit allocator with coalescing of TensorFlow and of XLA's clients (JAX), simulated to the
// byte. Source: openxla/xla 00df9eef xla/tsl/framework/bfc_allocator.{h,cc} without spatial
// partitioning and timestamps. Rules: docs/model/vram.md, "TensorFlow and JAX".
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "vram/allocator.h"
#include "vram/allocator_blocks.h"

namespace steelyard::vram {

struct BfcSettings {
  // What all regions together may hold (memory_limit_); none: a pool of one region as large as is
  // needed, for a card whose memory is not known.
  std::optional<Bytes> limit{};
  // Off: one region of `limit` is taken with the first request and kept. On: the first region has
  // 2 MiB, every next one twice as much.
  bool allow_growth = false;
  // Regions without a live chunk are given back before the allocator gives up.
  bool garbage_collection = true;
  // What the driver can give, where that is less than `limit`; then nine tenths of the region are
  // tried, again and again.
  std::optional<Bytes> device_bytes{};
};

class BfcAllocator final : public Allocator {
 public:
  explicit BfcAllocator(const BfcSettings& settings);

  // Streams share the chunks: a framework that uses several waits for their events itself.
  [[nodiscard]] std::optional<BlockId> try_allocate(Bytes requested, int stream = 0) override;
  // Its regions are the device's memory already: as try_allocate.
  [[nodiscard]] std::optional<BlockId> try_device(Bytes requested, int stream) override {
    return try_allocate(requested, stream);
  }
  void free(BlockId block) override;
  void retire(BlockId block) override;
  void empty_cache() override {}  // its pool stays
  // The last region becomes as much longer as the request lacks.
  [[nodiscard]] BlockId allocate_beyond(Bytes requested, int stream, Bytes spare = {}) override;

  [[nodiscard]] Bytes size_of(BlockId block) const override;
  [[nodiscard]] std::int64_t address_of(BlockId block) const override;
  [[nodiscard]] std::uint64_t fingerprint() const override;

 private:
  using Index = blocks::Index;

  std::optional<BlockId> find(std::int64_t rounded);
  bool extend(std::int64_t rounded);
  bool give_back_free_regions(std::int64_t rounded);
  void add_region(std::int64_t bytes);
  [[nodiscard]] std::optional<std::int64_t> from_device(std::int64_t bytes, std::int64_t rounded);
  void insert_free(Index index);
  void join(Index into, Index from);
  [[nodiscard]] blocks::Block& chunk(BlockId block) {
    return chunks_[static_cast<Index>(block - 1)];
  }
  [[nodiscard]] const blocks::Block& chunk(BlockId block) const {
    return chunks_[static_cast<Index>(block - 1)];
  }
  [[nodiscard]] blocks::FreeKey key_of(Index index) const {
    return {0, chunks_[index].size, chunks_[index].address, index};
  }

  // Totals: bytes_in_use, pool_bytes.
  BfcSettings settings_;
  std::int64_t limit_;
  std::int64_t next_region_;  // curr_region_allocation_bytes_
  std::int64_t next_address_;
  blocks::BlockStore chunks_;              // neighbours are of one region
  std::map<std::int64_t, Index> regions_;  // by where they begin: their last chunks
  // In the order of the search. Bins by powers of two split it into runs, which one order needs
  // not: the first chunk that is large enough is the same.
  blocks::FreeSet free_;
};

}  // namespace steelyard::vram
