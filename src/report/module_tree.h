// The modules of a model as a tree with the parameters below each.
#pragma once

#include <string>

#include "facts/model_table.h"
#include "report/paint.h"

namespace steelyard::report {

[[nodiscard]] std::string module_tree(const facts::ModelTable& model, const Paint& paint);

}  // namespace steelyard::report
