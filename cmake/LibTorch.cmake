# cosmos::torch: LibTorch as a plain imported target.
#
# The wheel's own TorchConfig.cmake insists on a CUDA toolkit even where nothing uses it; a CPU
# program needs libtorch_cpu and libc10 only (and starts twice as fast without the CUDA half).
# Looked for, in this order: COSMOS_LIBTORCH, each entry of CMAKE_PREFIX_PATH, the environment's
# CMAKE_PREFIX_PATH, <source>/.deps/torch (put there by tools/setup.sh).

set(COSMOS_LIBTORCH "" CACHE PATH "LibTorch folder (holds include/torch and lib/libtorch_cpu.so)")

set(_torch_hints ${COSMOS_LIBTORCH} ${CMAKE_PREFIX_PATH})
if(DEFINED ENV{CMAKE_PREFIX_PATH})
  string(REPLACE ":" ";" _torch_env "$ENV{CMAKE_PREFIX_PATH}")
  list(APPEND _torch_hints ${_torch_env})
endif()
list(APPEND _torch_hints ${CMAKE_CURRENT_LIST_DIR}/../.deps/torch)

find_path(COSMOS_TORCH_INCLUDE torch/headeronly/version.h PATHS ${_torch_hints}
          PATH_SUFFIXES include torch/include ../../../include NO_DEFAULT_PATH)
if(NOT COSMOS_TORCH_INCLUDE)
  message(FATAL_ERROR "LibTorch not found. Run tools/setup.sh, or name one: "
                      "cmake --preset cpu -DCOSMOS_LIBTORCH=/path/to/libtorch")
endif()
get_filename_component(COSMOS_TORCH_ROOT ${COSMOS_TORCH_INCLUDE}/.. ABSOLUTE)

file(READ ${COSMOS_TORCH_INCLUDE}/torch/headeronly/version.h _torch_version)
set(COSMOS_TORCH_VERSION "")
foreach(_part IN ITEMS MAJOR MINOR PATCH)
  string(REGEX MATCH "TORCH_VERSION_${_part} ([0-9]+)" _match "${_torch_version}")
  list(APPEND COSMOS_TORCH_VERSION ${CMAKE_MATCH_1})
endforeach()
string(REPLACE ";" "." COSMOS_TORCH_VERSION "${COSMOS_TORCH_VERSION}")
if(COSMOS_TORCH_VERSION VERSION_LESS 2.11)
  message(FATAL_ERROR "LibTorch ${COSMOS_TORCH_VERSION} at ${COSMOS_TORCH_ROOT} is too old: "
                      "2.11.0 is the pinned version, newer ones should build")
endif()

if(NOT TARGET cosmos::torch)
  add_library(cosmos::torch INTERFACE IMPORTED)
  target_include_directories(cosmos::torch SYSTEM INTERFACE
    ${COSMOS_TORCH_INCLUDE} ${COSMOS_TORCH_INCLUDE}/torch/csrc/api/include)
  set(_torch_libs torch_cpu c10)
  if(COSMOS_CUDA)
    list(APPEND _torch_libs torch_cuda c10_cuda)
  endif()
  foreach(_lib IN LISTS _torch_libs)
    find_library(COSMOS_LIB_${_lib} ${_lib} PATHS ${COSMOS_TORCH_ROOT}/lib NO_DEFAULT_PATH REQUIRED)
    target_link_libraries(cosmos::torch INTERFACE ${COSMOS_LIB_${_lib}})
  endforeach()
  # What LibTorch itself loads (libcudart, libcupti, cuDNN...) is found through its own RPATH at run
  # time; the linker need not resolve it.
  target_link_options(cosmos::torch INTERFACE
    -Wl,--allow-shlib-undefined -Wl,--no-as-needed -Wl,-rpath,${COSMOS_TORCH_ROOT}/lib)
  target_link_libraries(cosmos::torch INTERFACE pthread)
endif()
