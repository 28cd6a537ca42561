# How kernels are compiled: CPU loops once per instruction set, CUDA sources where nvcc is found.

# One binary runs on every x86-64: the best set the CPU has is picked at run time (ops/core/isa.h).
# Other architectures get the portable build alone.
function(cosmos_simd_kernels target)
  set(_sets default)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    list(APPEND _sets avx2 avx512)
    target_compile_definitions(${target} PRIVATE COSMOS_SIMD_X86)
  endif()
  set(_flags_avx2 -mavx2 -mfma -mf16c)
  set(_flags_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c
                    -mprefer-vector-width=512)
  foreach(_set IN LISTS _sets)
    set(_objects ${target}_${_set})
    add_library(${_objects} OBJECT ${ARGN})
    target_include_directories(${_objects} PRIVATE ${PROJECT_SOURCE_DIR})
    target_compile_definitions(${_objects} PRIVATE COSMOS_ISA=isa_${_set})
    # Sums are reordered only where a loop says so (omp simd reduction); NaN and infinity survive.
    target_compile_options(${_objects} PRIVATE -O3 -fopenmp-simd -fno-math-errno -fno-trapping-math
                           ${_flags_${_set}})
    _cosmos_common(${_objects})
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${_objects}>)
  endforeach()
endfunction()

# With COSMOS_CUDA the kernels join the library. Without it they are still compiled where nvcc is
# found (target cosmos_cuda_kernels, part of the default build), so that every change compiles them.
# At file scope, not in a function: enable_language() insists on it.
include(CheckLanguage)
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 90a CACHE STRING "CUDA architectures: 80, 89, 90a, 100, 120")
endif()
if(NOT COSMOS_SANITIZE)
  check_language(CUDA)
endif()
if(CMAKE_CUDA_COMPILER AND NOT COSMOS_SANITIZE)
  enable_language(CUDA)
elseif(COSMOS_CUDA)
  message(FATAL_ERROR "COSMOS_CUDA=ON needs nvcc: install the CUDA toolkit, or name it with "
                      "-DCMAKE_CUDA_COMPILER=/path/to/nvcc (or use the preset cpu)")
else()
  message(STATUS "nvcc not used: the CUDA kernels are not compiled")
endif()

function(cosmos_cuda_kernels target)
  if(NOT CMAKE_CUDA_COMPILER OR COSMOS_SANITIZE)
    return()
  endif()
  add_library(cosmos_cuda_kernels OBJECT ${ARGN})
  set_target_properties(cosmos_cuda_kernels PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON)
  target_include_directories(cosmos_cuda_kernels PRIVATE ${PROJECT_SOURCE_DIR})
  if(COSMOS_CUDA)
    find_package(CUDAToolkit REQUIRED)
    target_compile_definitions(cosmos_cuda_kernels PRIVATE COSMOS_CUDA)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:cosmos_cuda_kernels>)
    target_include_directories(${target} SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
    target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:CUDA::cudart>)
    target_compile_definitions(${target} PRIVATE COSMOS_CUDA)
  endif()
endfunction()
