# The CUDA kernels, where choose.cmake finds what they need. The runtime is linked statically, so that the module also
# loads on machines without a driver.
include(csrc/cuda/choose.cmake)
if(NOT STAPES_HAS_CUDA)
  return()
endif()

get_filename_component(root ${nvcc} REALPATH)
get_filename_component(root ${root} DIRECTORY)
get_filename_component(root ${root} DIRECTORY)
if(EXISTS ${root}/lib/libcudart.so.13)  # the wheels' layout, which CMake does not know
  set(CMAKE_CUDA_FLAGS "${CMAKE_CUDA_FLAGS} -L${root}/lib")
  set(CUDAToolkit_ROOT ${root})
  set(CUDA_CUDART ${root}/lib/libcudart.so.13)
endif()
set(CMAKE_CUDA_COMPILER ${nvcc})
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
enable_language(CUDA)

file(GLOB STAPES_CUDA_SOURCES CONFIGURE_DEPENDS csrc/cuda/*.cu)
add_library(stapes_cuda OBJECT ${STAPES_CUDA_SOURCES})
target_include_directories(stapes_cuda PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/csrc)
target_compile_definitions(stapes_cuda PRIVATE STAPES_CUDA)
# Compressed: machine code for one architecture takes a sixth of what it does by default.
target_compile_options(stapes_cuda PRIVATE --compress-mode=size -Xptxas=-v -Xcompiler=-Wall,-Wextra,-fvisibility=hidden
  $<$<BOOL:${STAPES_WERROR}>:-Werror=all-warnings>)
# Keeps what ptxas says of each kernel beside its object; spills that are not expected are as warnings.
if(STAPES_WERROR)
  set(spills compile)
else()
  set(spills report)
endif()
set_target_properties(stapes_cuda PROPERTIES CUDA_COMPILER_LAUNCHER
  "${Python_EXECUTABLE};${CMAKE_CURRENT_SOURCE_DIR}/csrc/cuda/kernel_log.py;${spills}"
  POSITION_INDEPENDENT_CODE ON)
target_compile_definitions(stapes_options INTERFACE STAPES_CUDA)
find_package(CUDAToolkit REQUIRED)
