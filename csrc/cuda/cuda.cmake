# The CUDA kernels, where an nvcc is found: CMAKE_CUDA_COMPILER, CUDACXX, CUDA_HOME, PATH, or NVIDIA's wheels
# (nvidia-cuda-nvcc, -crt, -nvvm, -runtime and -cccl, version 13) beside this Python. The runtime is linked statically,
# so that the module also loads on machines without a driver.
set(STAPES_CUDA AUTO CACHE STRING "CUDA kernels: AUTO (where there are an nvcc and a GPU), ON or OFF")
set(STAPES_CUDA_ARCHITECTURES "" CACHE STRING
    "What machine code is made for; without -real also PTX, for later ones. Empty: this machine's GPUs, else all")

# The architectures of this machine's GPUs that nvcc knows, such as "86-real;90a-real"; empty where there is none.
function(stapes_gpu_architectures nvcc result)
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
                  OUTPUT_VARIABLE gpus ERROR_QUIET RESULT_VARIABLE no_gpus)
  execute_process(COMMAND ${nvcc} --list-gpu-arch OUTPUT_VARIABLE known ERROR_QUIET)
  set(found)
  if(NOT no_gpus)
    string(REGEX MATCHALL "[0-9]+\\.[0-9]" gpus "${gpus}")
    list(REMOVE_DUPLICATES gpus)
    foreach(gpu ${gpus})
      string(REPLACE "." "" gpu ${gpu})
      if(known MATCHES "compute_${gpu}\n")
        string(REGEX REPLACE "^90$" "90a" gpu ${gpu})  # with Hopper's own instructions
        list(APPEND found ${gpu}-real)
      endif()
    endforeach()
  endif()
  set(${result} ${found} PARENT_SCOPE)
endfunction()

set(nvcc ${CMAKE_CUDA_COMPILER})
if(STAPES_CUDA AND NOT nvcc)
  execute_process(COMMAND ${Python_EXECUTABLE} -c "import sysconfig; print(sysconfig.get_path('purelib'))"
                  OUTPUT_VARIABLE site OUTPUT_STRIP_TRAILING_WHITESPACE)
  find_program(STAPES_NVCC nvcc HINTS $ENV{CUDACXX} $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin PATHS ${site}/nvidia/cu13/bin)
  set(nvcc ${STAPES_NVCC})
endif()
if(nvcc)
  stapes_gpu_architectures(${nvcc} gpus)
endif()
if(STAPES_CUDA AND NOT nvcc AND NOT STAPES_CUDA STREQUAL "AUTO")
  message(FATAL_ERROR "STAPES_CUDA=ON, but there is no nvcc: put it on PATH, set CUDA_HOME, or pip install "
                      "nvidia-cuda-nvcc nvidia-cuda-crt nvidia-nvvm nvidia-cuda-runtime nvidia-cuda-cccl")
endif()
# Seven architectures are many minutes of work: without a GPU only for who asks for them.
if(STAPES_CUDA STREQUAL "AUTO" AND NOT (nvcc AND gpus))
  set(STAPES_HAS_CUDA OFF)
else()
  set(STAPES_HAS_CUDA ${STAPES_CUDA})
endif()
if(NOT STAPES_HAS_CUDA)
  message(STATUS "CUDA kernels: none (STAPES_CUDA=${STAPES_CUDA}; nvcc: ${nvcc}; architectures of GPUs: ${gpus})")
  return()
endif()
if(STAPES_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES ${STAPES_CUDA_ARCHITECTURES})
elseif(gpus)
  set(CMAKE_CUDA_ARCHITECTURES ${gpus})
else()
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90a-real 100-real 120)
endif()
message(STATUS "CUDA kernels: ${nvcc}, ${CMAKE_CUDA_ARCHITECTURES}")

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
