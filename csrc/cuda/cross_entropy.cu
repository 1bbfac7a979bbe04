// cross_entropy
//   fwd: loss = sum over rows and classes of -q log p / D, p = softmax(logits), and in the same pass its gradient
//        saved = grad_scale (p sum(q) - q) / D
//   bwd: dlogits = scale * saved
// where for class ids  q = weight * ((1 - s) [class is the id] + s / classes), s the label smoothing;
//                      D = the summed weight of the ids not ignored
// and for probabilities q = weight * ((1 - s) target + s / classes); D = rows
// Without a row that counts, loss and gradient are 0. An id out of range makes D, and so all that counts, NaN.
// Layout: logits, saved, probabilities (rows, classes) in one dtype; weight and loss float32; ids int32 or int64.
// Work: a row is one group's (rows.cuh): 8 lanes for up to 32 classes, a warp for up to 1024, else a block of 256, in a
// grid of at most kMaxPartials blocks, fixed by the shape, which strides over rows. Each block leaves the loss of its
// rows, and a last block adds them. D of ids is summed beforehand: by a grid, of which each block adds the partials.
// Where one block has few rows it does all of that alone, in one launch.
// Launch bounds: 256 threads; 4 blocks of the forward kernel, which spilled on sm_120 where ptxas aimed at 5.
// Numerics: the row's maximum is subtracted; a row in float32; D and the sum over rows in double, in an order fixed by
// the shape. Classes with q = 0 add nothing, also where log p is -inf. Overwrites.
// Measured: not measured.
#include <cmath>

#include "cuda/dtype.cuh"
#include "cuda/elementwise.cuh"
#include "cuda/number.cuh"
#include "cuda/partials.cuh"
#include "cuda/rows.cuh"
#include "ops/kernels.hpp"

namespace stapes::cuda {
namespace {

using std::int64_t;

constexpr int kMaxDivisorBlocks = 64;  // their partials are added by every block
constexpr int kFewTurns = 8;           // of one block, instead of a grid

struct Problem {
  const void *logits, *target;
  const float* weight;  // may be null
  void* saved;
  float* loss;
  int64_t rows, classes, ignore_index;
  float smooth, keep;  // what smoothing gives to every class, and what it leaves to the target
  Number<double> grad_scale;
  bool ids_are_long;

  __device__ float weight_of(int64_t c) const { return weight == nullptr ? 1.0f : weight[c]; }
  __device__ int64_t id(int64_t row) const {
    return ids_are_long ? static_cast<const int64_t*>(target)[row] : static_cast<const std::int32_t*>(target)[row];
  }
};

// What the rows' sum is divided by, and whether there is a row that counts.
struct Divisor {
  double weights, rows;
};

struct Scratch {  // shared memory
  double sums[kRowThreads / 32];
  RowScratch<float> row;
};

// The summed weight of every `step`-th id from `first` on, over the block's threads.
__device__ Divisor divisor_of_ids(const Problem& p, int64_t first, int64_t step, Scratch& scratch) {
  Divisor d{0, 0};
  for (int64_t i = first; i < p.rows; i += step) {
    const int64_t id = p.id(i);
    if (id == p.ignore_index) continue;
    d.weights += id >= 0 && id < p.classes ? static_cast<double>(p.weight_of(id)) : static_cast<double>(NAN);
    d.rows += 1;
  }
  d.weights = block_reduce<kRowThreads>(d.weights, Sum{}, 0.0, scratch.sums);
  d.rows = block_reduce<kRowThreads>(d.rows, Sum{}, 0.0, scratch.sums);
  return d;
}

__global__ void __launch_bounds__(kRowThreads) cross_entropy_divisor_kernel(Problem p, double* weights, double* rows) {
  __shared__ Scratch scratch;
  const int64_t first = int64_t{blockIdx.x} * kRowThreads + threadIdx.x;
  const Divisor d = divisor_of_ids(p, first, int64_t{gridDim.x} * kRowThreads, scratch);
  if (threadIdx.x == 0) {
    weights[blockIdx.x] = d.weights;
    rows[blockIdx.x] = d.rows;
  }
}

// Of partials, or of the ids where there are none.
template <bool kIds>
__device__ Divisor divisor_of(const Problem& p, const double* weights, const double* rows, int count,
                              Scratch& scratch) {
  if constexpr (!kIds) {
    return {static_cast<double>(p.rows), static_cast<double>(p.rows)};
  } else if (count == 0) {
    return divisor_of_ids(p, threadIdx.x, kRowThreads, scratch);
  } else {
    return {sum_of_partials<kRowThreads>(weights, count, scratch.sums),
            sum_of_partials<kRowThreads>(rows, count, scratch.sums)};
  }
}

__device__ float mean(double sum, const Divisor& d) { return d.rows > 0 ? static_cast<float>(sum / d.weights) : 0.0f; }

// Loss of one row, of which this thread has the columns lane, lane + Lanes, ...; the result is in lane 0. `n` is the
// number of columns, or 0 where the group has no row and only reduces with the others.
template <class T, int Lanes, class Q>
__device__ float row_loss(const T* x, T* saved, int64_t n, int lane, float factor, const Q& q, Scratch& scratch) {
  float top = -INFINITY;
  for (int64_t c = lane; c < n; c += Lanes) top = Max{}(top, to_float(x[c]));
  top = row_reduce<Lanes>(top, Max{}, -INFINITY, scratch.row);
  float sum = 0.0f, q_sum = 0.0f;
  for (int64_t c = lane; c < n; c += Lanes) {
    sum += expf(to_float(x[c]) - top);
    q_sum += q(c);
  }
  sum = row_reduce<Lanes>(sum, Sum{}, 0.0f, scratch.row);
  q_sum = row_reduce<Lanes>(q_sum, Sum{}, 0.0f, scratch.row);
  const float log_sum = logf(sum), scale = q_sum / sum;
  float loss = 0.0f;
  for (int64_t c = lane; c < n; c += Lanes) {
    const float shifted = to_float(x[c]) - top, target = q(c);
    if (target != 0.0f) loss -= target * (shifted - log_sum);
    saved[c] = from_float<T>((expf(shifted) * scale - target) * factor);
  }
  return row_reduce<Lanes>(loss, Sum{}, 0.0f, scratch.row);
}

template <class T, int Lanes, bool kIds>
__global__ void __launch_bounds__(kRowThreads, 4)
    cross_entropy_fwd_kernel(Problem p, const double* weights, const double* rows, int count, double* losses) {
  constexpr int kRows = kRowsPerBlock<Lanes>;
  __shared__ Scratch scratch;
  const int group = static_cast<int>(threadIdx.x) / Lanes, lane = static_cast<int>(threadIdx.x) % Lanes;
  const Divisor d = divisor_of<kIds>(p, weights, rows, count, scratch);
  const float factor = static_cast<float>(value_of(p.grad_scale) / d.weights);
  double loss = 0;
  for (int64_t first = int64_t{blockIdx.x} * kRows; first < p.rows; first += int64_t{gridDim.x} * kRows) {
    const int64_t row = first + group, at = row * p.classes;
    const T* x = static_cast<const T*>(p.logits) + at;
    T* saved = static_cast<T*>(p.saved) + at;
    int64_t n = row < p.rows ? p.classes : 0;
    float of_row;
    if constexpr (kIds) {
      const int64_t id = n > 0 ? p.id(row) : p.ignore_index;
      if (id == p.ignore_index) {
        for (int64_t c = lane; c < n; c += Lanes) saved[c] = from_float<T>(0.0f);
        n = 0;
      }
      const auto q = [&](int64_t c) { return p.weight_of(c) * ((c == id ? p.keep : 0.0f) + p.smooth); };
      of_row = row_loss<T, Lanes>(x, saved, n, lane, factor, q, scratch);
    } else {
      const T* target = static_cast<const T*>(p.target) + at;
      const auto q = [&](int64_t c) { return p.weight_of(c) * (p.keep * to_float(target[c]) + p.smooth); };
      of_row = row_loss<T, Lanes>(x, saved, n, lane, factor, q, scratch);
    }
    if (lane == 0) loss += static_cast<double>(of_row);
  }
  loss = block_reduce<kRowThreads>(loss, Sum{}, 0.0, scratch.sums);
  if (threadIdx.x != 0) return;
  if (gridDim.x == 1) {
    *p.loss = mean(loss, d);
  } else {
    losses[blockIdx.x] = loss;
  }
}

template <bool kIds>
__global__ void __launch_bounds__(kRowThreads)
    cross_entropy_last_kernel(Problem p, const double* weights, const double* rows, int count, const double* losses,
                              int loss_count) {
  __shared__ Scratch scratch;
  const Divisor d = divisor_of<kIds>(p, weights, rows, count, scratch);
  const double loss = sum_of_partials<kRowThreads>(losses, loss_count, scratch.sums);
  if (threadIdx.x == 0) *p.loss = mean(loss, d);
}

template <class T, int Lanes, bool kIds>
void fwd(const Problem& p, Stream stream) {
  const int64_t turns = ceil_div(p.rows, int64_t{kRowsPerBlock<Lanes>});
  const unsigned grid = turns <= kFewTurns ? 1 : grid_of_partials(turns);
  const int64_t all = kIds && grid > 1 ? ceil_div(p.rows, int64_t{kRowThreads}) : 0;
  const int count = static_cast<int>(all < kMaxDivisorBlocks ? all : kMaxDivisorBlocks);
  const Workspace scratch((grid + 2 * static_cast<unsigned>(count)) * sizeof(double), stream);
  double *losses = scratch.as<double>(), *weights = losses + grid, *rows = weights + count;
  if (count > 0) {
    launch(cross_entropy_divisor_kernel, static_cast<unsigned>(count), kRowThreads, 0, stream, p, weights, rows);
  }
  launch(cross_entropy_fwd_kernel<T, Lanes, kIds>, grid, kRowThreads, 0, stream, p, weights, rows, count, losses);
  if (grid > 1) {
    launch(cross_entropy_last_kernel<kIds>, 1, kRowThreads, 0, stream, p, weights, rows, count, losses,
           static_cast<int>(grid));
  }
}

struct Scaled {
  Number<double> scale;
  float factor = 0.0f;

  __device__ void start() { factor = static_cast<float>(value_of(scale)); }
  __device__ float operator()(float saved) const { return saved * factor; }
};

}  // namespace

void cross_entropy_fwd(const CrossEntropyFwdArgs& a, Stream stream) {
  const bool has_ids = a.target_dtype == DType::kInt32 || a.target_dtype == DType::kInt64;
  const Problem p{a.logits,
                  a.target,
                  static_cast<const float*>(a.weight),
                  a.dlogits,
                  static_cast<float*>(a.loss),
                  a.rows,
                  a.classes,
                  a.ignore_index,
                  static_cast<float>(a.label_smoothing / static_cast<double>(a.classes)),
                  static_cast<float>(1 - a.label_smoothing),
                  a.grad_scale,
                  a.target_dtype == DType::kInt64};
  with_cuda_dtype(a.dtype, [&]<class T>(T) {
    with_lanes(a.classes, [&]<int Lanes>(std::integral_constant<int, Lanes>) {
      if (has_ids) {
        fwd<T, Lanes, true>(p, stream);
      } else {
        fwd<T, Lanes, false>(p, stream);
      }
    });
  });
}

void cross_entropy_bwd(const CrossEntropyBwdArgs& a, Stream stream) {
  with_cuda_dtype(a.dtype, [&]<class T>(T) {
    map(static_cast<T*>(a.dlogits), a.size, Scaled{a.scale}, stream, static_cast<const T*>(a.saved));
  });
}

}  // namespace stapes::cuda
