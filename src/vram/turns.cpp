#include "vram/turns.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <unordered_map>
#include <utility>

#include "base/parallel.h"

namespace steelyard::vram {

namespace {

// Programs of a kind meet the same scripts: stages between the first and the last differ in how
// many micro-batches they hold, and nobody else has as many tensors as they.
std::size_t kind_of(const step::Program& program) {
  return program.slots.size();
}

// Indices of `programs`. What has no like comes first: it learns from nobody, so that it takes
// longest, and at the end it would run alone.
std::vector<std::size_t> longest_first(const std::vector<const step::Program*>& programs) {
  std::unordered_map<std::size_t, std::size_t> alike;
  for (const step::Program* program : programs) ++alike[kind_of(*program)];
  std::vector<std::size_t> order(programs.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return alike[kind_of(*programs[i])]; });
  return order;
}

}  // namespace

std::vector<Answer> replay_all(const Request& request,
                               const std::vector<const step::Program*>& programs) {
  std::vector<Answer> answers(programs.size());
  const std::vector<std::size_t> order = longest_first(programs);
  Experiences experiences;
  for_each_side_by_side(programs.size(), [&](std::size_t turn) {
    const std::size_t i = order[turn];
    const std::size_t kind = kind_of(*programs[i]);
    Request own = request;
    own.program = programs[i];
    std::unique_ptr<Experience> experience = experiences.borrow(kind);
    answers[i] = replay(own, *experience);
    experiences.give_back(kind, std::move(experience));
  });
  return answers;
}

}  // namespace steelyard::vram
