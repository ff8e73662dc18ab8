#include "model/onnx_batch.h"

#include <algorithm>
#include <numeric>

#include "base/quantity.h"

namespace steelyard::model {

Shape with_batch(const Shape& shape, const BatchPlaces& places, std::int64_t batch) {
  Shape result = shape;
  for (std::size_t i = 0; i < std::min(shape.size(), places.size()); ++i) {
    if (!places[i].there()) continue;
    result[i] = checked_multiply(checked_multiply(places[i].outer, batch), places[i].inner);
  }
  return result;
}

std::optional<BatchPlaces> places_of_view(const Shape& shape, const BatchPlaces& places,
                                          const Shape& other, std::int64_t batch) {
  if (places.empty()) return BatchPlaces();
  BatchPlaces result(other.size());
  std::int64_t passed = 1;  // elements of the dimensions before
  for (std::size_t i = 0; i < places.size(); passed *= shape[i++]) {
    if (!places[i].there()) continue;
    const std::int64_t before = passed * places[i].outer;
    std::optional<std::size_t> best;
    int best_rank = 0;
    std::int64_t at = 1;
    for (std::size_t to = 0; to < other.size(); at *= other[to++]) {
      if (at == 0 || other[to] == 0 || result[to].there() || before % at != 0) continue;
      const std::int64_t outer = before / at;
      if (other[to] % (outer * batch) != 0) continue;
      const bool alone = other[to] == batch && outer == 1;
      // Rows of features, for a linear: those hold no batch where the rows could.
      const bool features = other.size() == 2 && to == 1;
      const int rank = alone && to == i ? 4 : alone ? 3 : outer == 1 && !features ? 2 : 1;
      if (rank <= best_rank) continue;
      best = to;
      best_rank = rank;
      result[to] = {};
    }
    if (!best) return std::nullopt;
    const std::int64_t head =
        std::accumulate(other.begin(), other.begin() + static_cast<std::ptrdiff_t>(*best),
                        std::int64_t{1}, std::multiplies<>());
    const std::int64_t outer = before / head;
    result[*best] = {outer, other[*best] / (outer * batch)};
  }
  return result;
}

void add_aligned(BatchPlaces& into, const Shape& shape, const Shape& operand,
                 const BatchPlaces& places) {
  if (places.empty()) return;
  into.resize(shape.size());
  for (std::size_t back = 0; back < std::min(shape.size(), operand.size()); ++back) {
    const BatchPlace place = places[places.size() - 1 - back];
    const std::size_t at = shape.size() - 1 - back;
    if (!place.there() || operand[operand.size() - 1 - back] != shape[at]) continue;
    if (!into[at].there()) into[at] = place;
  }
}

std::optional<BatchPlace> place_of_part(BatchPlace place, std::int64_t from, std::int64_t count,
                                        std::int64_t batch) {
  const std::int64_t unit = place.inner * batch;
  if (unit == 0 || from % unit != 0 || count % unit != 0) return std::nullopt;
  return BatchPlace{count / unit, place.inner};
}

}  // namespace steelyard::model
