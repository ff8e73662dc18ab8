// The tensors that files of weights hold, by their headers: names, shapes and types, no data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace steelyard::facts {

struct StoredTensor {
  std::string name;
  std::string dtype;                // as the file says: "BF16"
  std::vector<std::int64_t> shape;  // each >= 0; countable
  std::int64_t bytes = 0;
};

struct StoredTensors {
  std::string file;  // the one that was named: a header, or the index of several
  std::vector<StoredTensor> tensors;
};

}  // namespace steelyard::facts
