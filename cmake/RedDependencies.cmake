# Every outside library, found once and under one name. README lists the Debian packages.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)                                          # libfmt-dev
find_package(MPI REQUIRED COMPONENTS C)                             # libopenmpi-dev
# Without MPI's C++ bindings, which version 5 no longer has, a program built with Open MPI 4 runs under both.
target_compile_definitions(MPI::MPI_C INTERFACE OMPI_SKIP_MPICXX)
find_package(HDF5 REQUIRED COMPONENTS C)                            # libhdf5-dev
find_package(Boost REQUIRED COMPONENTS program_options iostreams)   # libboost-program-options-dev, -iostreams-dev
find_package(nlohmann_json REQUIRED)                                # nlohmann-json3-dev
find_package(OpenSSL REQUIRED COMPONENTS Crypto)                       # libssl-dev
find_package(simdjson REQUIRED)                                     # libsimdjson-dev
find_package(PkgConfig REQUIRED)
pkg_check_modules(zstd REQUIRED IMPORTED_TARGET libzstd)                  # libzstd-dev
pkg_check_modules(sentencepiece REQUIRED IMPORTED_TARGET sentencepiece)   # libsentencepiece-dev
pkg_check_modules(hwy REQUIRED IMPORTED_TARGET libhwy)                    # libhwy-dev
pkg_check_modules(openblas REQUIRED IMPORTED_TARGET openblas)              # libopenblas-dev
find_library(RED_DNNL_LIBRARY dnnl REQUIRED)                         # libdnnl-dev; its own CMake file asks for OpenCL
find_path(RED_DNNL_INCLUDE_DIR dnnl.h REQUIRED)
add_library(red_dnnl INTERFACE)
target_include_directories(red_dnnl SYSTEM INTERFACE "${RED_DNNL_INCLUDE_DIR}")
target_link_libraries(red_dnnl INTERFACE "${RED_DNNL_LIBRARY}")
if(RED_TESTS)
  find_package(GTest REQUIRED)                                      # libgtest-dev
endif()

# Debian's HDF5 module gives variables; one target keeps its callers plain.
add_library(red_hdf5 INTERFACE)
target_include_directories(red_hdf5 SYSTEM INTERFACE ${HDF5_C_INCLUDE_DIRS})
target_link_libraries(red_hdf5 INTERFACE ${HDF5_C_LIBRARIES})
