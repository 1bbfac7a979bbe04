# Whether there will be CUDA kernels (STAPES_HAS_CUDA), what compiles them (nvcc), and for which GPUs
# (CMAKE_CUDA_ARCHITECTURES). nvcc is looked for in CMAKE_CUDA_COMPILER, CUDACXX, CUDA_HOME, PATH, and NVIDIA's wheels
# beside this Python (nvidia-cuda-nvcc, -crt, -nvvm, -runtime and -cccl).
set(STAPES_CUDA AUTO CACHE STRING "CUDA kernels: AUTO (where there are an nvcc 13 and a GPU), ON or OFF")
set(STAPES_CUDA_ARCHITECTURES "" CACHE STRING
    "What machine code is made for; without -real also PTX, for later ones. Empty: this machine's GPUs, else all")

# The architectures of this machine's GPUs, such as "86-real;90a-real"; empty where there is none that nvcc serves. For
# a GPU later than nvcc it is the last architecture, with PTX.
function(stapes_gpu_architectures nvcc result)
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
                  OUTPUT_VARIABLE gpus ERROR_QUIET RESULT_VARIABLE no_gpus TIMEOUT 60)
  execute_process(COMMAND ${nvcc} --list-gpu-arch OUTPUT_VARIABLE known ERROR_QUIET)
  set(found)
  if(NOT no_gpus)
    string(REGEX MATCHALL "[0-9]+\\.[0-9]" gpus "${gpus}")
    foreach(gpu ${gpus})
      string(REPLACE "." "" gpu ${gpu})
      if(known MATCHES "compute_${gpu}\n")
        string(REGEX REPLACE "^90$" "90a" gpu ${gpu})  # with Hopper's own instructions
        list(APPEND found ${gpu}-real)
      elseif(gpu GREATER 120)
        list(APPEND found 120)
      endif()
    endforeach()
    list(REMOVE_DUPLICATES found)
  endif()
  set(${result} ${found} PARENT_SCOPE)
endfunction()

set(STAPES_HAS_CUDA OFF)
if(NOT STAPES_CUDA)
  message(STATUS "CUDA kernels: none (STAPES_CUDA=${STAPES_CUDA})")
  return()
endif()

set(nvcc ${CMAKE_CUDA_COMPILER})
if(NOT nvcc)
  execute_process(COMMAND ${Python_EXECUTABLE} -c "import sysconfig; print(sysconfig.get_path('purelib'))"
                  OUTPUT_VARIABLE site OUTPUT_STRIP_TRAILING_WHITESPACE)
  find_program(STAPES_NVCC nvcc HINTS $ENV{CUDACXX} $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin PATHS ${site}/nvidia/cu13/bin)
  set(nvcc ${STAPES_NVCC})
endif()
set(missing)
set(gpus)
if(nvcc)
  execute_process(COMMAND ${nvcc} --version OUTPUT_VARIABLE version ERROR_QUIET)
  if(NOT version MATCHES "release ([0-9]+)" OR CMAKE_MATCH_1 LESS 13)
    set(missing "${nvcc} is older than 13")
  endif()
  stapes_gpu_architectures(${nvcc} gpus)
else()
  set(missing "there is no nvcc: put it on PATH, set CUDA_HOME, or pip install nvidia-cuda-nvcc nvidia-cuda-crt \
nvidia-nvvm nvidia-cuda-runtime nvidia-cuda-cccl")
endif()
if(STAPES_CUDA STREQUAL "AUTO")
  # All architectures are minutes of work: without a GPU only for who asks for them.
  if(NOT missing AND NOT gpus AND NOT STAPES_CUDA_ARCHITECTURES)
    set(missing "there is no GPU that nvcc serves; STAPES_CUDA=ON compiles them all the same")
  endif()
  if(missing)
    message(STATUS "CUDA kernels: none, ${missing}")
    return()
  endif()
elseif(missing)
  message(FATAL_ERROR "STAPES_CUDA=${STAPES_CUDA}, but ${missing}")
endif()

set(STAPES_HAS_CUDA ON)
if(STAPES_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES ${STAPES_CUDA_ARCHITECTURES})
elseif(gpus)
  set(CMAKE_CUDA_ARCHITECTURES ${gpus})
else()
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90a-real 100-real 120)
endif()
message(STATUS "CUDA kernels: ${nvcc}, ${CMAKE_CUDA_ARCHITECTURES}")
