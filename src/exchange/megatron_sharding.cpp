#include "exchange/megatron_sharding.h"

#include <algorithm>

namespace steelyard::exchange {

std::int64_t expert_tensor_ranks(const facts::Job& job, std::int64_t stages) {
  const std::int64_t tensor = std::max<std::int64_t>(job.parallel.tensor, 1);
  const std::int64_t expert = std::max<std::int64_t>(job.parallel.expert, 1);
  if (!job.machine.gpus) return tensor;
  const std::int64_t ranks = checked_multiply(job.machine.nodes, *job.machine.gpus);
  const std::int64_t stage = ranks / std::max<std::int64_t>(stages, 1);
  return stage % tensor == 0 && stage / tensor % expert == 0 ? tensor : 1;
}

}  // namespace steelyard::exchange
