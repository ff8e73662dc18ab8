// The operators of recommendation networks, as the statements of their eager PyTorch code
// (facebookresearch/dlrm, dlrm_s_pytorch.py: apply_emb, interact_features). Called by run_operator.
#pragma once

#include <vector>

#include "step/operators.h"

namespace steelyard::step {

// embedding_tables, exchange_tables, join_features, pairwise_products, binary_loss.
[[nodiscard]] std::vector<Tensor> run_table_operator(Tape& tape, const OperatorCall& call);

}  // namespace steelyard::step
