// A batch that an exporter wrote down as a number: where it lies in the shapes of the values, so
// that they can be had for another one. The graph is lowered with the file's own batch, with which
// all of its constants agree; what is made of the inputs' batch is followed from operator to
// operator, and the sizes are put right at the end.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "model/graph.h"

namespace steelyard::model {

// A dimension of outer x batch x inner, in this order; `outer` 0: not made of the batch.
struct BatchPlace {
  std::int64_t outer = 0, inner = 0;

  [[nodiscard]] bool there() const { return outer > 0; }
  friend bool operator==(const BatchPlace&, const BatchPlace&) = default;
};
// One for each dimension; empty: the batch is nowhere in it.
using BatchPlaces = std::vector<BatchPlace>;

// The shape with another batch.
[[nodiscard]] Shape with_batch(const Shape& shape, const BatchPlaces& places, std::int64_t batch);

// Where the batch lies after the same elements got another shape. Nothing: it would be cut apart.
// A batch of 1 may lie in several places: then a dimension of its own is taken, the same if it is
// there still.
[[nodiscard]] std::optional<BatchPlaces> places_of_view(const Shape& shape,
                                                        const BatchPlaces& places,
                                                        const Shape& other, std::int64_t batch);

// Adds to `into` what an operand's dimensions of the same sizes, aligned at the last one, say.
void add_aligned(BatchPlaces& into, const Shape& shape, const Shape& operand,
                 const BatchPlaces& places);

// Of `count` elements from `from` on along a dimension of the batch. Nothing: cut apart.
[[nodiscard]] std::optional<BatchPlace> place_of_part(BatchPlace place, std::int64_t from,
                                                      std::int64_t count, std::int64_t batch);

}  // namespace steelyard::model
