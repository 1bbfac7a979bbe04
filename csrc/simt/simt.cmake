# _simt: the operators with the CUDA kernels on the emulator. A module for tests; nothing installs it.
# STAPES_SIMT_MODE: "check" (the kernels' memory accesses are logged and checked), "plain", "asan" or "coverage".
set(STAPES_SIMT_MODE check CACHE STRING "check, plain, asan or coverage")
file(GLOB STAPES_SIMT_KERNELS CONFIGURE_DEPENDS csrc/cuda/*.cu)
file(GLOB STAPES_SIMT_ENGINE CONFIGURE_DEPENDS csrc/simt/*.cpp)
set_source_files_properties(${STAPES_SIMT_KERNELS} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++")

set(simt_kernel_options -O1 -fsanitize=thread,bounds,alignment --param=tsan-instrument-func-entry-exit=0)
set(simt_engine_options -O3)
set(simt_link_options)
if(STAPES_SIMT_MODE STREQUAL plain)
  set(simt_kernel_options -O2)
elseif(STAPES_SIMT_MODE STREQUAL asan)
  set(simt_kernel_options -O1 -fsanitize=address,undefined -fno-sanitize-recover=all)
  set(simt_engine_options ${simt_kernel_options})
  set(simt_link_options -fsanitize=address,undefined)
elseif(STAPES_SIMT_MODE STREQUAL coverage)
  set(simt_kernel_options -O0 --coverage)
  set(simt_link_options --coverage)
endif()

add_library(stapes_simt_options INTERFACE)
target_compile_definitions(stapes_simt_options INTERFACE STAPES_SIMT)
target_link_libraries(stapes_simt_options INTERFACE stapes_options)

add_library(stapes_simt_kernels OBJECT ${STAPES_SIMT_KERNELS})
target_link_libraries(stapes_simt_kernels PRIVATE stapes_simt_options)
target_compile_options(stapes_simt_kernels PRIVATE -g1 ${simt_kernel_options} -fno-strict-aliasing -Wno-unknown-pragmas)

add_library(stapes_simt_engine OBJECT ${STAPES_SIMT_ENGINE})
target_link_libraries(stapes_simt_engine PRIVATE stapes_simt_options)
target_compile_options(stapes_simt_engine PRIVATE -g1 ${simt_engine_options})

pybind11_add_module(_simt MODULE NO_EXTRAS EXCLUDE_FROM_ALL ${STAPES_SOURCES} ${STAPES_CPU_COMMON}
  $<TARGET_OBJECTS:stapes_simt_kernels> $<TARGET_OBJECTS:stapes_simt_engine>)
target_link_libraries(_simt PRIVATE stapes_simt_options ${CMAKE_DL_LIBS})
target_compile_definitions(_simt PRIVATE STAPES_MODULE=_simt STAPES_VERSION="${SKBUILD_PROJECT_VERSION}")
target_compile_options(_simt PRIVATE -O1 $<$<STREQUAL:${STAPES_SIMT_MODE},asan>:-fsanitize=address,undefined>)
target_link_options(_simt PRIVATE ${simt_link_options})
