#include "sense/cublaslt_api.h"

namespace steelyard::sense {

CublasLtApi::CublasLtApi(const SharedLibrary& library) {
  library.find("cublasLtGetVersion", version);
  library.find("cublasLtCreate", create);
  library.find("cublasLtDestroy", destroy);
  library.find("cublasLtMatmulDescCreate", make_product);
  library.find("cublasLtMatmulDescDestroy", end_product);
  library.find("cublasLtMatmulDescSetAttribute", set_product);
  library.find("cublasLtMatrixLayoutCreate", make_layout);
  library.find("cublasLtMatrixLayoutDestroy", end_layout);
  library.find("cublasLtMatmulPreferenceCreate", make_preference);
  library.find("cublasLtMatmulPreferenceDestroy", end_preference);
  library.find("cublasLtMatmulPreferenceSetAttribute", set_preference);
  library.find("cublasLtMatmulAlgoGetHeuristic", choose);
  library.find("cublasLtMatmul", multiply);
}

bool CublasLtApi::complete() const {
  return version != nullptr && create != nullptr && destroy != nullptr && make_product != nullptr &&
         end_product != nullptr && set_product != nullptr && make_layout != nullptr &&
         end_layout != nullptr && make_preference != nullptr && end_preference != nullptr &&
         set_preference != nullptr && choose != nullptr && multiply != nullptr;
}

}  // namespace steelyard::sense
