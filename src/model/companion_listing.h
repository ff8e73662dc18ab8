// Writes down what a model that runs without gradients holds, module by module, and the products of
// its forward pass: enough for its weights, its time and the largest tensors it makes. Norms and
// activations between them are no operators here (step/companion_passes.h counts them).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/graph.h"

namespace steelyard::model {

class Listing {
 public:
  Listing(Graph& graph, std::string block);

  void weight(const std::string& name, Shape shape, WeightRole role = WeightRole::matrix);
  void norm(const std::string& name, std::int64_t width, bool bias = true);
  // Reads the last dimension of tokens, or the channels of a picture.
  void linear(const std::string& name, std::int64_t in, std::int64_t out, bool bias = true);
  // Windows of `kernel`, one size per dimension; of a video a window of two dimensions reads each
  // frame by itself.
  void conv(const std::string& name, std::int64_t in, std::int64_t out, const Shape& kernel);
  // Of all that is there now, without a mask.
  void attention(const std::string& name, std::int64_t heads, std::int64_t width);

  // From here on modules read tokens [B,S], a picture [B,h,w] or a video [B,T,h,w], and their
  // operators are written down; none: what follows does not run.
  void reads(Shape positions) { positions_ = std::move(positions); }
  void reads_nothing() { positions_.clear(); }
  // What follows reads half the rows and columns, and half the frames behind the first.
  void halve_sides();
  void halve_frames();
  [[nodiscard]] const Shape& positions() const { return positions_; }

  void end(std::int64_t repeat = 1);
  // The same operators run `passes` times, each time on another part: the weights are one set.
  void end_in_passes(std::int64_t passes);

 private:
  [[nodiscard]] bool runs() const { return !positions_.empty(); }
  [[nodiscard]] Shape with_channels(std::int64_t channels) const;
  TensorRef tensor(const std::string& name, Shape shape);
  Operator& append(OperatorKind kind, const std::string& name, Shape in, Shape out);

  Graph& graph_;
  Block block_;
  Shape positions_;
};

// Pictures of the sample as an autoencoder reads them: [B,h,w], [B,T,h,w] where `video` and there
// are frames; empty: none are known.
[[nodiscard]] Shape pixels_read(std::int64_t batch, std::int64_t frames, std::int64_t height,
                                std::int64_t width, bool video);

}  // namespace steelyard::model
