#include "model/speech_parts.h"

#include <cmath>

namespace steelyard::model {

std::int64_t audio_samples_of(const SampleShape& sample, std::int64_t own) {
  if (sample.audio_seconds <= 0.0) return own;
  return std::llround(sample.audio_seconds * static_cast<double>(kSamplingRate));
}

}  // namespace steelyard::model
