// The end of the class that "architectures" names, for families that build one end themselves:
// transformers' ...ForSequenceClassification, ...ForTokenClassification, ...ForQuestionAnswering in
// the place of a decoder's output projection.
#pragma once

#include "base/error.h"
#include "model/config_reader.h"
#include "model/graph.h"

namespace steelyard::model {

// Sources: transformers, modeling_layers.py (GenericForSequenceClassification: score without bias
// over all tokens, the last one's is taken; ...TokenClassification: dropout and a linear with bias;
// ...QuestionAnswering: qa_outputs of two) and the same classes of modeling_gpt2.py, _bloom.py,
// _falcon.py, _gpt_neox.py.
// Errors: a class whose end is not built, by its name.
[[nodiscard]] Result<Graph> with_class_head(Graph graph, ConfigReader& config);

}  // namespace steelyard::model
