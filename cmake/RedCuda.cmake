# The CUDA backend: finds nvcc, the runtime and cuBLASLt where RED_CUDA wants them, and defines red_add_backends,
# red_add_kernels. Sets RED_HAS_CUDA. docs/cuda.md tells how to get what is missing.
set(RED_CUDA AUTO CACHE STRING "CUDA backend: AUTO builds it where nvcc and cuBLAS are found, ON demands it, OFF")
set_property(CACHE RED_CUDA PROPERTY STRINGS AUTO ON OFF)

# A program says in its property RED_BACKEND what it is linked with; what lies above the backends is compiled once and
# linked with any of them. Nothing dispatches at run time.
#   (not set)     the CPU's
#   cuda          on a GPU
#   cuda_on_cpu   for tests: the same host code, with kernels compiled as C++ and fakes of CUDA's libraries
#   cuda_on_cpu_asan, cuda_on_cpu_race   the same with kernels under AddressSanitizer and UndefinedBehaviorSanitizer, or
#                 under the race checker
define_property(TARGET PROPERTY RED_BACKEND BRIEF_DOCS "Backend that a program links"
  FULL_DOCS "empty, cuda, cuda_on_cpu, cuda_on_cpu_asan or cuda_on_cpu_race")

# red_add_backends(name): `name` stands for name_cpu or name_cuda. red_add_flavours(name): `name`, which only CUDA's half
# links, stands for name_cuda, name_cuda_on_cpu ...
function(red_add_backends name)
  add_library(${name} INTERFACE)
  target_link_libraries(${name} INTERFACE "${name}_$<IF:$<BOOL:$<TARGET_PROPERTY:RED_BACKEND>>,cuda,cpu>")
endfunction()
function(red_add_flavours name)
  add_library(${name} INTERFACE)
  set(backend "$<TARGET_PROPERTY:RED_BACKEND>")
  target_link_libraries(${name} INTERFACE "$<$<BOOL:${backend}>:${name}_${backend}>")
endfunction()

# red_add_kernels(name SOURCES a.cu ... [PUBLIC libs...]): kernels of a folder, as name_cuda by nvcc; tests/cuda_on_cpu
# compiles the same files as C++, once for each flavour.
function(red_add_kernels name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC" ${ARGN})
  red_add_flavours(${name})
  if(NOT ARG_SOURCES)
    return()
  endif()
  add_library(${name}_cuda STATIC ${ARG_SOURCES})
  target_link_libraries(${name}_cuda PUBLIC red_flags ${ARG_PUBLIC})
  list(TRANSFORM ARG_SOURCES PREPEND "${CMAKE_CURRENT_SOURCE_DIR}/")
  set_property(GLOBAL APPEND PROPERTY RED_KERNELS ${name})
  set_property(GLOBAL PROPERTY RED_KERNELS_${name}_SOURCES "${ARG_SOURCES}")
  set_property(GLOBAL PROPERTY RED_KERNELS_${name}_PUBLIC "${ARG_PUBLIC}")
endfunction()

# red_add_gpu_test(program objects devices ranks): a test program with the real libraries, in gpu_tests of the build folder, and its
# line of gpu_tests/list.txt: name, ranks or -, and whether each rank needs a GPU of its own.
add_custom_target(red_gpu_tests)
function(red_add_gpu_test program objects devices ranks)
  add_executable(${program} EXCLUDE_FROM_ALL $<TARGET_OBJECTS:${objects}>)
  set_target_properties(${program} PROPERTIES RED_BACKEND cuda LINKER_LANGUAGE CXX
    RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/gpu_tests")
  add_dependencies(red_gpu_tests ${program})
  list(JOIN ranks "," ranks)
  if(NOT ranks)
    set(ranks -)
  endif()
  set(gpus shared)
  if(devices GREATER 1)
    set(gpus each)
  endif()
  set_property(GLOBAL APPEND PROPERTY RED_GPU_TESTS "${program} ${ranks} ${gpus}")
endfunction()

# red_add_cuda_test(name {SOURCES a.cpp ... | OBJECTS object_library} [LIBRARIES libs...] [RANKS 1 2] [FLAVOURS f...]
#                   [TIMEOUT seconds] [DEVICES n] [ORDERS natural:lazy ...] [HARNESS_ONLY]): a GoogleTest program on the CUDA backend without a
# GPU, compiled once and linked for each flavour: name_test, name_asan_test, name_race_test. Each runs as .natural, .reversed
# and .warp by the order of threads, with lazy, random and eager streams. With RANKS it is an MPI test, and .npN follows the
# order. DEVICES: GPUs of the machine, 1. ORDERS: not all three. The same objects with the real libraries are name_gpu_test,
# for a machine with a GPU (target red_gpu_tests, tests/gpu/run_all.sh), unless HARNESS_ONLY: what tests the harness, or by it.
function(red_add_cuda_test name)
  cmake_parse_arguments(ARG "HARNESS_ONLY" "TIMEOUT;OBJECTS;DEVICES" "SOURCES;LIBRARIES;RANKS;FLAVOURS;ORDERS" ${ARGN})
  if(NOT ARG_ORDERS)
    set(ARG_ORDERS natural:lazy reversed:random warp:eager)
  endif()
  if(NOT ARG_DEVICES)
    set(ARG_DEVICES 1)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(NOT ARG_FLAVOURS)
    set(ARG_FLAVOURS cuda_on_cpu cuda_on_cpu_asan cuda_on_cpu_race)
  endif()
  if(ARG_SOURCES)
    set(ARG_OBJECTS ${name}_objects)
    add_library(${ARG_OBJECTS} OBJECT ${ARG_SOURCES})
    target_include_directories(${ARG_OBJECTS} PRIVATE "${PROJECT_SOURCE_DIR}/tests"
      "${PROJECT_SOURCE_DIR}/tests/cuda_on_cpu")
    target_compile_options(${ARG_OBJECTS} PRIVATE ${RED_TEST_OPTIONS})
    target_link_libraries(${ARG_OBJECTS} PRIVATE red_device red_cuda_headers red_test_support)
  endif()
  set(main GTest::gtest_main)
  if(ARG_RANKS)
    set(main red_mpi_test_main)
  endif()
  if(NOT ARG_HARNESS_ONLY)
    red_add_gpu_test(${name}_gpu_test ${ARG_OBJECTS} ${ARG_DEVICES} "${ARG_RANKS}")
    target_link_libraries(${name}_gpu_test PRIVATE ${ARG_LIBRARIES} red_device red_cuda_runtime ${main})
  endif()
  foreach(flavour IN LISTS ARG_FLAVOURS)
    string(REGEX REPLACE "^cuda_on_cpu" "" suffix "${flavour}")
    set(program ${name}${suffix}_test)
    add_executable(${program} $<TARGET_OBJECTS:${ARG_OBJECTS}>)
    set_target_properties(${program} PROPERTIES RED_BACKEND ${flavour} LINKER_LANGUAGE CXX)
    string(REPLACE "FLAVOUR" "${flavour}" libraries "${ARG_LIBRARIES}")
    target_link_libraries(${program} PRIVATE ${libraries} red_device red_cuda_runtime ${main})
    # Tests that run cases of others again, for equal bits or for memory, show nothing new to a checker of accesses.
    set(filter)
    if(suffix)
      set(filter ";GTEST_FILTER=-*Threads*:*.ScratchMemoryIsAsPlanned")
    endif()
    foreach(orders IN LISTS ARG_ORDERS)
      string(REPLACE ":" ";" orders "${orders}")
      list(GET orders 0 threads)
      list(GET orders 1 streams)
      set(registered)
      if(ARG_RANKS)
        foreach(ranks IN LISTS ARG_RANKS)
          add_test(NAME ${program}.${threads}.np${ranks}
            COMMAND "${PROJECT_SOURCE_DIR}/launch/local.sh" -n ${ranks} "$<TARGET_FILE:${program}>")
          set_tests_properties(${program}.${threads}.np${ranks} PROPERTIES PROCESSORS $<IF:$<EQUAL:${ranks},1>,1,2>)
          list(APPEND registered ${program}.${threads}.np${ranks})
        endforeach()
      else()
        add_test(NAME ${program}.${threads} COMMAND ${program})
        set(registered ${program}.${threads})
      endif()
      # LeakSanitizer cannot follow what is on the stacks of fibers.
      set_tests_properties(${registered} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS cuda ENVIRONMENT
        "CUDA_ON_CPU_THREADS=${threads};CUDA_ON_CPU_STREAMS=${streams};CUDA_ON_CPU_DEVICES=${ARG_DEVICES};RED_GEMM_CACHE=off;ASAN_OPTIONS=detect_leaks=0${filter}")
    endforeach()
  endforeach()
endfunction()

# Where things are: the toolkit of the nvcc that is asked for or found first, then what launch/cuda_sdk.sh fetched.
set(sdk "${PROJECT_SOURCE_DIR}/build/cuda/nvidia/cu13")
find_program(RED_NVCC nvcc HINTS "$ENV{CUDA_HOME}" "$ENV{CUDA_PATH}" PATHS /usr/local/cuda "${sdk}" PATH_SUFFIXES bin
  DOC "CUDA's compiler, 12.8 or newer")
set(hints "${sdk}")
if(RED_NVCC)
  # It tells its home itself: what is on the path may be a link or a script.
  execute_process(COMMAND "${RED_NVCC}" --dryrun -x cu -c /dev/null -o /dev/null ERROR_VARIABLE told OUTPUT_QUIET)
  if(told MATCHES "TOP=([^\n]+)")
    file(REAL_PATH "${CMAKE_MATCH_1}" toolkit)
    list(PREPEND hints "${toolkit}")
  endif()
endif()
# The libraries of a toolkit have no lib64 in some installations, and those from PyPI no name without a version.
find_path(RED_CUDA_INCLUDE_DIR cuda_runtime.h HINTS ${hints} PATH_SUFFIXES include)
find_path(RED_CUBLAS_INCLUDE_DIR cublasLt.h HINTS ${hints} "$ENV{CUBLAS_HOME}" PATH_SUFFIXES include)
find_library(RED_CUDART_LIBRARY NAMES cudart libcudart.so.13 libcudart.so.12 HINTS ${hints} PATH_SUFFIXES lib64 lib)
find_library(RED_CUBLASLT_LIBRARY NAMES cublasLt libcublasLt.so.13 libcublasLt.so.12 HINTS ${hints} "$ENV{CUBLAS_HOME}"
  PATH_SUFFIXES lib64 lib)
# What reads the resources of kernels for a test.
find_program(RED_CUOBJDUMP cuobjdump HINTS ${hints} PATH_SUFFIXES bin)

set(missing)
foreach(part RED_NVCC RED_CUDA_INCLUDE_DIR RED_CUDART_LIBRARY RED_CUBLAS_INCLUDE_DIR RED_CUBLASLT_LIBRARY)
  if(NOT ${part})
    list(APPEND missing ${part})
  endif()
endforeach()
list(JOIN missing ", " missing)
set(RED_HAS_CUDA OFF)
if(RED_CUDA STREQUAL "OFF")
  # Nothing is said: it was asked for.
elseif(RED_SANITIZE OR RED_FUZZ)
  # The harness has sanitizer builds of its own, which these would only repeat.
  if(RED_CUDA STREQUAL "ON")
    message(FATAL_ERROR "RED_CUDA=ON does not go with RED_SANITIZE or RED_FUZZ; the tests of the CUDA backend have "
      "sanitizers of their own (docs/cuda.md)")
  endif()
  message(STATUS "CUDA backend: not in builds with sanitizers; its tests have their own")
elseif(missing)
  if(RED_CUDA STREQUAL "ON")
    message(FATAL_ERROR "RED_CUDA=ON, but these are not found: ${missing}. Load your site's CUDA module (12.8 or newer) "
      "or set CUDA_HOME, or run launch/cuda_sdk.sh, which fetches them from PyPI into build/cuda; then configure again")
  endif()
  message(STATUS "CUDA backend: not built, and its tests are absent (not found: ${missing}; launch/cuda_sdk.sh gets them)")
else()
  set(RED_HAS_CUDA ON)
endif()
if(NOT RED_HAS_CUDA)
  return()
endif()

execute_process(COMMAND "${RED_NVCC}" --list-gpu-arch OUTPUT_VARIABLE known COMMAND_ERROR_IS_FATAL ANY)
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(architectures)
  foreach(architecture 80 90a 100)
    string(REGEX REPLACE "[a-z]" "" number "${architecture}")
    if(known MATCHES "compute_${number}[^0-9]")
      list(APPEND architectures ${architecture})
    endif()
  endforeach()
  set(CMAKE_CUDA_ARCHITECTURES "${architectures}" CACHE STRING "GPU architectures to compile kernels for")
endif()
set(CMAKE_CUDA_COMPILER "${RED_NVCC}")
set(CMAKE_CUDA_HOST_COMPILER "${CMAKE_CXX_COMPILER}")
set(CMAKE_CUDA_RUNTIME_LIBRARY None)  # red_cuda_libraries names it; tests link a fake in its place
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.8)
  message(FATAL_ERROR "nvcc ${CMAKE_CUDA_COMPILER_VERSION} at ${RED_NVCC} is too old: 12.8 or newer is needed "
    "(set RED_NVCC, or RED_CUDA=OFF)")
endif()
# C++20 by a flag of ours (red_flags): CMake before 3.26 does not know that nvcc has it.
if(RED_CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER "${RED_CCACHE}")
endif()
message(STATUS "CUDA backend: nvcc ${CMAKE_CUDA_COMPILER_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES}, "
  "${RED_CUBLASLT_LIBRARY}")

# red_cudnn: cuDNN and its header-only frontend, which includes nvrtc.h.
find_path(RED_CUDNN_INCLUDE_DIR cudnn.h HINTS "${PROJECT_SOURCE_DIR}/build/cuda/nvidia/cudnn" "$ENV{CUDNN_HOME}" ${hints}
  PATH_SUFFIXES include)
find_path(RED_CUDNN_FRONTEND_INCLUDE_DIR cudnn_frontend.h HINTS "${PROJECT_SOURCE_DIR}/build/cuda" "$ENV{CUDNN_FRONTEND_HOME}"
  PATH_SUFFIXES include)
find_path(RED_NVRTC_INCLUDE_DIR nvrtc.h HINTS ${hints} PATH_SUFFIXES include)
find_library(RED_CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 HINTS "${PROJECT_SOURCE_DIR}/build/cuda/nvidia/cudnn" "$ENV{CUDNN_HOME}"
  ${hints} PATH_SUFFIXES lib64 lib)
find_library(RED_NVRTC_LIBRARY NAMES nvrtc libnvrtc.so.13 libnvrtc.so.12 HINTS ${hints} PATH_SUFFIXES lib64 lib)
set(RED_HAS_CUDNN OFF)
if(RED_CUDNN_INCLUDE_DIR AND RED_CUDNN_FRONTEND_INCLUDE_DIR AND RED_NVRTC_INCLUDE_DIR AND RED_CUDNN_LIBRARY AND
   RED_NVRTC_LIBRARY)
  set(RED_HAS_CUDNN ON)
  add_library(red_cudnn INTERFACE)
  target_include_directories(red_cudnn SYSTEM INTERFACE "${RED_CUDNN_FRONTEND_INCLUDE_DIR}" "${RED_CUDNN_INCLUDE_DIR}"
    "${RED_NVRTC_INCLUDE_DIR}")
  target_link_libraries(red_cudnn INTERFACE "${RED_CUDNN_LIBRARY}" "${RED_NVRTC_LIBRARY}" ${CMAKE_DL_LIBS})
else()
  message(STATUS "CUDA backend: without cuDNN's attention (cuDNN, its frontend or nvrtc not found; launch/cuda_sdk.sh gets them)")
endif()

# red_nccl: the library, or what the tests have in its place; red_nccl_headers: to compile against.
find_path(RED_NCCL_INCLUDE_DIR nccl.h HINTS "${PROJECT_SOURCE_DIR}/build/cuda/nvidia/nccl" "$ENV{NCCL_HOME}" ${hints}
  PATH_SUFFIXES include)
find_library(RED_NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS "${PROJECT_SOURCE_DIR}/build/cuda/nvidia/nccl" "$ENV{NCCL_HOME}"
  ${hints} PATH_SUFFIXES lib64 lib)
set(RED_HAS_NCCL OFF)
if(RED_NCCL_INCLUDE_DIR AND RED_NCCL_LIBRARY)
  set(RED_HAS_NCCL ON)
  add_library(red_nccl_headers INTERFACE)
  target_include_directories(red_nccl_headers SYSTEM INTERFACE "${RED_NCCL_INCLUDE_DIR}")
  red_add_flavours(red_nccl)
  add_library(red_nccl_cuda INTERFACE)
  target_link_libraries(red_nccl_cuda INTERFACE "${RED_NCCL_LIBRARY}")
else()
  message(STATUS "CUDA backend: without NCCL, so ranks exchange GPU memory through the host's (NCCL 2.18 or newer not found; "
    "launch/cuda_sdk.sh gets it)")
endif()

# red_cuda_headers: to compile host code against. red_cuda_runtime: what runs it, by backend.
add_library(red_cuda_headers INTERFACE)
target_include_directories(red_cuda_headers SYSTEM INTERFACE "${RED_CUDA_INCLUDE_DIR}" "${RED_CUBLAS_INCLUDE_DIR}")
red_add_flavours(red_cuda_runtime)
add_library(red_cuda_runtime_cuda INTERFACE)
target_link_libraries(red_cuda_runtime_cuda INTERFACE "${RED_CUBLASLT_LIBRARY}" "${RED_CUDART_LIBRARY}")
