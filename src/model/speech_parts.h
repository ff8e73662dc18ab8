// What the families that hear share: how long a sample is.
#pragma once

#include <cstdint>

#include "model/family.h"

namespace steelyard::model {

// Samples of the waveform of one sample: the job's seconds, else the family's own number.
[[nodiscard]] std::int64_t audio_samples_of(const SampleShape& sample, std::int64_t own);

}  // namespace steelyard::model
