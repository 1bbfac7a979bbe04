# The CUDA kernels, where an nvcc is found: CMAKE_CUDA_COMPILER, CUDACXX, CUDA_HOME, PATH, or NVIDIA's wheels
# (nvidia-cuda-nvcc, -crt, -nvvm, -runtime and -cccl, version 13) beside this Python. The runtime is linked statically,
# so that the module also loads on machines without a driver.
set(STAPES_CUDA AUTO CACHE STRING "CUDA kernels: AUTO (where an nvcc is found), ON or OFF")
set(STAPES_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90a-real 100-real 120 CACHE STRING
    "What machine code is made for; an architecture without -real also gets PTX, for later ones")

set(nvcc ${CMAKE_CUDA_COMPILER})
if(STAPES_CUDA AND NOT nvcc)
  execute_process(COMMAND ${Python_EXECUTABLE} -c "import sysconfig; print(sysconfig.get_path('purelib'))"
                  OUTPUT_VARIABLE site OUTPUT_STRIP_TRAILING_WHITESPACE)
  find_program(STAPES_NVCC nvcc HINTS $ENV{CUDACXX} $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin PATHS ${site}/nvidia/cu13/bin)
  set(nvcc ${STAPES_NVCC})
endif()
if(STAPES_CUDA AND nvcc)
  set(STAPES_HAS_CUDA ON)
elseif(STAPES_CUDA AND NOT STAPES_CUDA STREQUAL "AUTO")
  message(FATAL_ERROR "STAPES_CUDA=ON, but there is no nvcc: put it on PATH, set CUDA_HOME, or pip install "
                      "nvidia-cuda-nvcc nvidia-cuda-crt nvidia-nvvm nvidia-cuda-runtime nvidia-cuda-cccl")
else()
  set(STAPES_HAS_CUDA OFF)
endif()
message(STATUS "CUDA kernels: ${STAPES_HAS_CUDA} ${nvcc}")
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
set(CMAKE_CUDA_ARCHITECTURES ${STAPES_CUDA_ARCHITECTURES})
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
enable_language(CUDA)

file(GLOB STAPES_CUDA_SOURCES CONFIGURE_DEPENDS csrc/cuda/*.cu)
add_library(stapes_cuda OBJECT ${STAPES_CUDA_SOURCES})
target_include_directories(stapes_cuda PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/csrc)
target_compile_definitions(stapes_cuda PRIVATE STAPES_CUDA)
target_compile_options(stapes_cuda PRIVATE -Xptxas=-v -Xcompiler=-Wall,-Wextra,-fvisibility=hidden
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
