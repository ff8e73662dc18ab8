// The data keys of a job from a real folder.
#pragma once

#include "facts/job.h"
#include "rehearse/dataset.h"

namespace steelyard::cli {

// samples, bytes_per_sample, bytes_deviation, stored_size, kind and layout as they are; what the
// job gives itself stays unless `all`.
void measure_data(const rehearse::Dataset& dataset, bool all, facts::Job& job);

}  // namespace steelyard::cli
