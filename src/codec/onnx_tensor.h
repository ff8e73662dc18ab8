// TensorProto: the dimensions and type of a tensor, and the values of small ones.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "codec/onnx.h"
#include "codec/wire.h"

namespace steelyard::codec {

struct ExternalData {
  std::string tensor, location;
  std::uint64_t offset = 0, length = 0;
};

class OnnxTensorReader {
 public:
  OnnxTensorReader(WireState& state, const OnnxLimits& limits) : state_(state), limits_(limits) {}

  [[nodiscard]] facts::OnnxTensor tensor(const WireField& message);
  // A name: valid UTF-8 of limited length.
  [[nodiscard]] std::string text(const WireField& field);
  [[nodiscard]] const std::vector<ExternalData>& external() const { return external_; }

 private:
  struct Content;
  void read_fields(const WireField& message, facts::OnnxTensor& tensor, Content& content);
  void add_dim(const WireField& at, std::int64_t size, facts::OnnxTensor& tensor);
  void read_external(const WireField& message, ExternalData& data);
  void keep_values(facts::OnnxTensor& tensor, const Content& content);
  void keep_diagonal(facts::OnnxTensor& tensor, const WireField& raw);
  void keep_raw(facts::OnnxTensor& tensor, const WireField& raw, std::int64_t count);

  WireState& state_;
  const OnnxLimits& limits_;
  std::vector<ExternalData> external_;
};

// Bytes of an element as it lies in raw data; 0 for what has no such form (text) and for types
// nobody knows. Half-byte types are given as 1.
[[nodiscard]] std::int64_t bytes_of_element(facts::OnnxElement element);

}  // namespace steelyard::codec
