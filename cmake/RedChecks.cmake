# red_header_checks: compiles every header by itself, so that each includes what it uses. Not part of a normal build:
#   ninja -C build/release red_header_checks
# A header that a source of its folder includes first is checked by that source already.
# Parts of a Highway kernel (*-inl.hpp) are exempt: foreach_target.h includes them once per instruction set.
# So are, without CUDA or NCCL, headers that include their own.
set(needs_nccl "/nccl_(check|link|context|communicator)\\.hpp$|/fakes/nccl")
set(needs_cuda "/nccl_operation|/cuda_|/cublaslt_|/gemm_algorithms|/pinned_ring|_cuda\\.hpp$|^tests/cuda_on_cpu/")
set(folders src parallel checkpoint launch)
if(RED_TESTS)
  list(APPEND folders tests)
endif()
set(sources)
foreach(folder IN LISTS folders)
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE "${PROJECT_SOURCE_DIR}" "${PROJECT_SOURCE_DIR}/${folder}/*.hpp")
  file(GLOB_RECURSE users CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${folder}/*.cpp")
  set(first_includes)
  foreach(user IN LISTS users)
    file(STRINGS "${user}" include REGEX "^#include" LIMIT_COUNT 1)
    list(APPEND first_includes "${include}")
  endforeach()
  foreach(header IN LISTS headers)
    string(REGEX REPLACE "^(src|tests)/" "" name "${header}")
    if(NOT "#include \"${name}\"" IN_LIST first_includes AND NOT header MATCHES "-inl\\.hpp$" AND
       (RED_HAS_CUDA OR NOT header MATCHES "${needs_cuda}") AND (RED_HAS_NCCL OR NOT header MATCHES "${needs_nccl}"))
      string(REGEX REPLACE "\\.hpp$" ".cpp" name "${header}")
      set(source "${PROJECT_BINARY_DIR}/header_checks/${name}")
      file(CONFIGURE OUTPUT "${source}" CONTENT "#include \"${PROJECT_SOURCE_DIR}/${header}\"\n")
      list(APPEND sources "${source}")
    endif()
  endforeach()
endforeach()
add_library(red_header_checks OBJECT EXCLUDE_FROM_ALL ${sources})
target_include_directories(red_header_checks PRIVATE "${PROJECT_SOURCE_DIR}/tests")
target_compile_options(red_header_checks PRIVATE -O0)
target_compile_definitions(red_header_checks PRIVATE RED_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
  RED_BINARY_DIR="${PROJECT_BINARY_DIR}")
target_link_libraries(red_header_checks PRIVATE red_flags fmt::fmt MPI::MPI_C red_hdf5 red_dnnl PkgConfig::sentencepiece
  PkgConfig::hwy PkgConfig::openblas simdjson::simdjson nlohmann_json::nlohmann_json Boost::program_options
  Boost::iostreams)
if(RED_TESTS)
  target_link_libraries(red_header_checks PRIVATE GTest::gtest)
endif()
if(RED_HAS_CUDA)
  target_link_libraries(red_header_checks PRIVATE red_cuda_headers $<TARGET_NAME_IF_EXISTS:red_nccl_headers>)
  target_include_directories(red_header_checks PRIVATE "${PROJECT_SOURCE_DIR}/tests/cuda_on_cpu"
    "${PROJECT_SOURCE_DIR}/tests/cuda_on_cpu/runtime/x86_64")
endif()
