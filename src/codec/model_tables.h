// [[model]], the tables of a job of several models, as the table [model] that the other keys know.
#pragma once

#include <string>

#include "base/error.h"
#include "codec/document.h"

namespace steelyard::codec {

// The policy's table becomes `model`, those of a pipeline's parts (role = "vae", "text_encoder",
// "text_encoder_2") `model.companions`, the others `model.roles`; `lines` (may be null) follow. A
// single [model] may say role = "policy". Other jobs stay as they are.
// Errors: no policy, or several; companions in both forms.
[[nodiscard]] Result<void> join_models(facts::Value& job, Lines* lines, const std::string& name);

}  // namespace steelyard::codec
