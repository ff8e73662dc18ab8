// What a diffusers pipeline's folder names beside its denoiser.
#pragma once

#include <filesystem>
#include <vector>

#include "base/error.h"
#include "facts/job.h"

namespace steelyard::catalog {

// The text encoders and the autoencoder that model_index.json names, where job.model.config is the
// folder of a pipeline (or that file) and their own configurations lie in it; each as a path that
// Catalog::companions_of reads, frozen and held as job.model.pipeline says, else always. Nothing
// for other models, and for a job that lists companions, be it none (`companions = []`). `folder`:
// what paths are relative to. Errors: a model_index.json that cannot be read, and a
// job.model.pipeline that names a part which is not there or says no way to hold it.
[[nodiscard]] Result<std::vector<facts::Companion>> pipeline_companions(
    const facts::Job& job, const std::filesystem::path& folder);

}  // namespace steelyard::catalog
