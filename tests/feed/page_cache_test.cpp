#include "feed/page_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <list>
#include <numeric>
#include <random>
#include <unordered_map>
#include <vector>

namespace steelyard::feed {
namespace {

using namespace literals;

// A plain LRU cache of `slots` equal samples, read once per epoch in a new random order.
double simulated_lru(std::size_t samples, std::size_t slots, int epochs, std::mt19937_64& random) {
  std::vector<std::size_t> order(samples);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::list<std::size_t> recent;  // most recent first
  std::unordered_map<std::size_t, std::list<std::size_t>::iterator> where;
  std::int64_t hits = 0;
  std::int64_t reads = 0;
  for (int epoch = 0; epoch < epochs; ++epoch) {
    std::shuffle(order.begin(), order.end(), random);
    for (const std::size_t sample : order) {
      const auto found = where.find(sample);
      if (epoch > 0) {
        ++reads;
        if (found != where.end()) ++hits;
      }
      if (found != where.end()) recent.erase(found->second);
      recent.push_front(sample);
      where[sample] = recent.begin();
      if (recent.size() > slots) {
        where.erase(recent.back());
        recent.pop_back();
      }
    }
  }
  return static_cast<double>(hits) / static_cast<double>(reads);
}

TEST(PageCache, agreesWithASimulatedLru) {
  std::mt19937_64 random(20'265);
  constexpr std::size_t kSamples = 10'000;
  for (const std::size_t slots : {500UL, 2'500UL, 5'000UL, 7'500UL, 9'500UL}) {
    const CacheHits hits =
        page_cache_hits(Bytes(static_cast<std::int64_t>(slots)),
                        Bytes(static_cast<std::int64_t>(kSamples)), facts::Shuffle::sample);
    EXPECT_NEAR(hits.served.value(), simulated_lru(kSamples, slots, 6, random), 0.01) << slots;
  }
}

// f = 0.5: 0.5 + 0.5 ln 0.5 = 0.1534; f = 0.35: 0.35 + 0.65 ln 0.65 = 0.0700
TEST(PageCache, byHand) {
  const CacheHits half = page_cache_hits(50_GB, 100_GB, facts::Shuffle::sample);
  EXPECT_NEAR(half.served.value(), 0.1534, 1e-4);
  EXPECT_DOUBLE_EQ(half.at_most.value(), 0.5);
  EXPECT_NEAR(page_cache_hits(35_GB, 100_GB, facts::Shuffle::shard).served.value(), 0.0700, 1e-4);
}

TEST(PageCache, allOrNothingInOrder) {
  EXPECT_EQ(page_cache_hits(100_GB, 100_GB, facts::Shuffle::none).served, Ratio(1.0));
  EXPECT_EQ(page_cache_hits(99_GB, 100_GB, facts::Shuffle::none).served, Ratio(0.0));
  EXPECT_EQ(page_cache_hits(100_GB, 100_GB, facts::Shuffle::sample).served, Ratio(1.0));
  EXPECT_EQ(page_cache_hits(Bytes(), 100_GB, facts::Shuffle::sample).served, Ratio(0.0));
}

TEST(PageCache, aLargerCacheNeverServesLess) {
  double before = 0.0;
  for (std::int64_t cache = 0; cache <= 1'000; ++cache) {
    const CacheHits hits = page_cache_hits(Bytes(cache), Bytes(1'000), facts::Shuffle::sample);
    EXPECT_GE(hits.served.value(), before);
    EXPECT_LE(hits.served, hits.at_most);
    before = hits.served.value();
  }
  EXPECT_EQ(before, 1.0);
}

}  // namespace
}  // namespace steelyard::feed
