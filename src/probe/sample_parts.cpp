#include "probe/sample_parts.h"

#include <algorithm>

#include "rehearse/image/crop.h"
#include "rehearse/image/random.h"

namespace steelyard::probe {

namespace {

constexpr unsigned kBits = 7;
constexpr std::size_t kSeeds = std::size_t{1} << kBits;
constexpr std::size_t kTried = 16;  // for each seed that is taken

struct Part {
  std::uint64_t seed = 0;
  double cost = 0;
};

// Decoders go through all rows down to the end of the part, and transform what lies in it.
Part part_of(std::uint64_t seed, int width, int height) {
  rehearse::Random random(seed);
  const rehearse::Box box = rehearse::random_resized_crop(width, height, random);
  const double rows = static_cast<double>(box.top + box.height) / height;
  const double area = static_cast<double>(box.width) * box.height / width / height;
  return {.seed = seed, .cost = rows + area};
}

}  // namespace

std::vector<std::uint64_t> representative_seeds(int width, int height) {
  std::vector<Part> parts;
  for (std::uint64_t seed = 1; seed <= kSeeds * kTried; ++seed) {
    parts.push_back(part_of(rehearse::Random::mixed(seed), width, height));
  }
  std::stable_sort(parts.begin(), parts.end(),
                   [](const Part& a, const Part& b) { return a.cost < b.cost; });
  // From each slice the middle one; the slices in van der Corput's order, bits reversed.
  std::vector<std::uint64_t> seeds;
  for (std::size_t i = 0; i < kSeeds; ++i) {
    std::size_t slice = 0;
    for (unsigned bit = 0; bit < kBits; ++bit) slice |= (i >> bit & 1U) << (kBits - 1 - bit);
    seeds.push_back(parts[slice * kTried + kTried / 2].seed);
  }
  return seeds;
}

}  // namespace steelyard::probe
