// batch_norm2d over M = N * H * W values of each channel
//   fwd: y = (x - mean) * rstd * gamma + beta, rstd = 1 / sqrt(var + eps)
//        in training var is the biased variance of the batch, and running = (1 - momentum) * running + momentum * batch
//        with the unbiased variance M / (M - 1) * var; else the running values are used
//   bwd: dbeta = sum dy, dgamma = rstd * sum dy (x - mean)
//        in training dx = gamma * rstd * (dy - dbeta / M - (x - mean) * rstd * dgamma / M), else gamma * rstd * dy
// Layout: (M, C), channels innermost.
// Work: chunks of rows (RowChunks), fixed by the shape; every chunk's result per channel, merged in their order.
// Numerics: statistics and sums in double. A chunk's squares are taken about its first value o: since
// (mean - o)^2 <= n var for any o among n values, the variance loses at most a factor n (about 1000) of double's
// precision, however large the mean. Chunks are merged by Chan's formula. y uses the mean as a rounded value plus what
// rounding left, so that a large mean costs float32 no digits either. Both overwrite.
// Source: S. Ioffe, C. Szegedy, "Batch Normalization", 2015; T. Chan, G. Golub, R. LeVeque, "Updating Formulae and a
// Pairwise Algorithm for Computing Sample Variances", 1979.
#include <cmath>

#include "core/dispatch.hpp"
#include "cpu/columns.hpp"
#include "cpu/workspace.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

using std::int64_t;

// mean, m2: for each column the mean and the summed squared distance from it.
template <class T>
void column_moments(const T* x, int64_t rows, int64_t cols, double* mean, double* m2) {
  for (int64_t c = 0; c < cols; ++c) mean[c] = m2[c] = 0;
  for_row_tiles(rows, cols, [=](int64_t begin, int64_t end, auto block) {
    constexpr int V = decltype(block)::kVectors;
    Vec<double> origin[V], sum[V], square[V];
    for (int v = 0; v < V; ++v) {
      origin[v] = block.get(x, v);
      sum[v] = block.get(mean, v);
      square[v] = block.get(m2, v);
    }
    for (int64_t r = begin; r < end; ++r) {
      for (int v = 0; v < V; ++v) {
        const Vec<double> d = block.get(x + r * cols, v) - origin[v];
        sum[v] += d;
        square[v] += d * d;
      }
    }
    for (int v = 0; v < V; ++v) {
      block.put(mean, v, sum[v]);
      block.put(m2, v, square[v]);
    }
  });
  const double n = static_cast<double>(rows);
  for (int64_t c = 0; c < cols; ++c) {
    const double left = m2[c] - mean[c] * mean[c] / n;
    m2[c] = left < 0 ? 0 : left;
    mean[c] = static_cast<double>(x[c]) + mean[c] / n;
  }
}

// (mean, m2) of n values each, joined with those of n_other values each.
void merge_moments(double n, double* mean, double* m2, double n_other, const double* mean_other, const double* m2_other,
                   int64_t channels) {
  const double share = n_other / (n + n_other), weight = n * share;
  for (int64_t c = 0; c < channels; ++c) {
    const double d = mean_other[c] - mean[c];
    mean[c] += d * share;
    m2[c] += m2_other[c] + d * d * weight;
  }
}

// The mean and biased variance of every channel; scratch holds 2 * wide doubles for each task.
template <class T>
void batch_statistics(const T* x, const RowChunks& chunks, double* scratch, double* mean, double* var) {
  const int64_t channels = chunks.channels, wide = chunks.wide;
  parallel_for(chunks.tasks(), [&](int64_t i) {
    double *task_mean = scratch + i * 2 * wide, *task_m2 = task_mean + wide;
    chunks.run(i, [&](int64_t first, int64_t rows, int64_t cols) {
      column_moments(x + first, rows, cols, task_mean, task_m2);
      const double n = static_cast<double>(rows);
      for (int64_t f = 1; f * channels < cols; ++f) {
        merge_moments(n * static_cast<double>(f), task_mean, task_m2, n, task_mean + f * channels,
                      task_m2 + f * channels, channels);
      }
    });
  });
  for (int64_t c = 0; c < channels; ++c) mean[c] = var[c] = 0;
  double n = 0;
  for (int64_t i = 0; i < chunks.tasks(); ++i) {
    const double* task_mean = scratch + i * 2 * wide;
    chunks.run(i, [&](int64_t, int64_t rows, int64_t cols) {
      const int64_t positions = rows * (cols / channels);
      const double n_task = static_cast<double>(positions);
      merge_moments(n, mean, var, n_task, task_mean, task_mean + wide, channels);
      n += n_task;
    });
  }
  for (int64_t c = 0; c < channels; ++c) var[c] /= n;
}

template <class T>
void normalise(const T* __restrict x, T* __restrict y, int64_t rows, int64_t cols, const T* __restrict mean,
               const T* __restrict scale, const T* __restrict shift) {
  for (int64_t r = 0; r < rows; ++r, x += cols, y += cols) {
    for (int64_t c = 0; c < cols; ++c) y[c] = (x[c] - mean[c]) * scale[c] + shift[c];
  }
}

template <class T>
void update_running(T& running, double batch, double momentum) {
  running = static_cast<T>((1 - momentum) * static_cast<double>(running) + momentum * batch);
}

template <class T>
void fwd_of(const BatchNorm2dFwdArgs& a) {
  const int64_t C = a.channels;
  const RowChunks chunks(a.rows, C);
  const T *x = static_cast<const T*>(a.x), *gamma = static_cast<const T*>(a.gamma),
          *beta = static_cast<const T*>(a.beta);
  T *y = static_cast<T*>(a.y), *mean = static_cast<T*>(a.mean), *rstd = static_cast<T*>(a.rstd);
  T *running_mean = static_cast<T*>(a.running_mean), *running_var = static_cast<T*>(a.running_var);

  const Workspace statistics = workspace_of<double>(2 * C), coefficients = workspace_of<T>(3 * chunks.wide);
  double *exact_mean = statistics.as<double>(), *var = exact_mean + C;
  if (a.training) {
    const Workspace scratch = workspace_of<double>(chunks.tasks() * 2 * chunks.wide);
    batch_statistics(x, chunks, scratch.as<double>(), exact_mean, var);
    const double rows = static_cast<double>(a.rows);
    for (int64_t c = 0; c < C; ++c) {
      update_running(running_mean[c], exact_mean[c], a.momentum);
      update_running(running_var[c], var[c] * (rows / (rows - 1)), a.momentum);
    }
  } else {
    for (int64_t c = 0; c < C; ++c) {
      exact_mean[c] = static_cast<double>(running_mean[c]);
      var[c] = static_cast<double>(running_var[c]);
    }
  }

  T *center = coefficients.as<T>(), *scale = center + chunks.wide, *shift = scale + chunks.wide;
  for (int64_t c = 0; c < C; ++c) {
    const double exact_rstd = 1 / std::sqrt(var[c] + a.eps), exact_scale = exact_rstd * static_cast<double>(gamma[c]);
    mean[c] = center[c] = static_cast<T>(exact_mean[c]);
    rstd[c] = static_cast<T>(exact_rstd);
    scale[c] = static_cast<T>(exact_scale);
    const double left = exact_mean[c] - static_cast<double>(center[c]);
    shift[c] = static_cast<T>(static_cast<double>(beta[c]) - left * exact_scale);
  }
  chunks.repeat(center);
  chunks.repeat(scale);
  chunks.repeat(shift);
  parallel_for(chunks.tasks(), [&](int64_t i) {
    chunks.run(i, [&](int64_t first, int64_t rows, int64_t cols) {
      normalise(x + first, y + first, rows, cols, center, scale, shift);
    });
  });
}

// For each column the sums of dy and of dy * (x - mean).
template <class T>
void column_sums(const T* dy, const T* x, const T* mean, int64_t rows, int64_t cols, double* sum_dy, double* sum_dyx) {
  for (int64_t c = 0; c < cols; ++c) sum_dy[c] = sum_dyx[c] = 0;
  for_row_tiles(rows, cols, [=](int64_t begin, int64_t end, auto block) {
    constexpr int V = decltype(block)::kVectors;
    Vec<double> center[V], s[V], sx[V];
    for (int v = 0; v < V; ++v) {
      center[v] = block.get(mean, v);
      s[v] = block.get(sum_dy, v);
      sx[v] = block.get(sum_dyx, v);
    }
    for (int64_t r = begin; r < end; ++r) {
      for (int v = 0; v < V; ++v) {
        const Vec<double> g = block.get(dy + r * cols, v);
        s[v] += g;
        sx[v] += g * (block.get(x + r * cols, v) - center[v]);
      }
    }
    for (int v = 0; v < V; ++v) {
      block.put(sum_dy, v, s[v]);
      block.put(sum_dyx, v, sx[v]);
    }
  });
}

// As column_sums for the channels of all rows; scratch holds 2 * wide doubles for each task.
template <class T>
void batch_sums(const T* dy, const T* x, const T* mean, const RowChunks& chunks, double* scratch, double* sum_dy,
                double* sum_dyx) {
  const int64_t channels = chunks.channels, wide = chunks.wide;
  parallel_for(chunks.tasks(), [&](int64_t i) {
    double* task = scratch + i * 2 * wide;
    chunks.run(i, [&](int64_t first, int64_t rows, int64_t cols) {
      column_sums(dy + first, x + first, mean, rows, cols, task, task + wide);
      for (int64_t c = channels; c < cols; ++c) {
        task[c % channels] += task[c];
        task[wide + c % channels] += task[wide + c];
      }
    });
  });
  for (int64_t c = 0; c < channels; ++c) sum_dy[c] = sum_dyx[c] = 0;
  for (int64_t i = 0; i < chunks.tasks(); ++i) {
    const double* task = scratch + i * 2 * wide;
    for (int64_t c = 0; c < channels; ++c) {
      sum_dy[c] += task[c];
      sum_dyx[c] += task[wide + c];
    }
  }
}

// dx = a dy + b (x - mean) + c
template <class T>
void input_gradient(const T* __restrict dy, const T* __restrict x, T* __restrict dx, int64_t rows, int64_t cols,
                    const T* __restrict mean, const T* __restrict a, const T* __restrict b, const T* __restrict c) {
  for (int64_t r = 0; r < rows; ++r, dy += cols, x += cols, dx += cols) {
    for (int64_t i = 0; i < cols; ++i) dx[i] = a[i] * dy[i] + (b[i] * (x[i] - mean[i]) + c[i]);
  }
}

template <class T>
void scale_columns(const T* __restrict dy, T* __restrict dx, int64_t rows, int64_t cols, const T* __restrict a) {
  for (int64_t r = 0; r < rows; ++r, dy += cols, dx += cols) {
    for (int64_t i = 0; i < cols; ++i) dx[i] = a[i] * dy[i];
  }
}

template <class T>
void bwd_of(const BatchNorm2dBwdArgs& args) {
  const int64_t C = args.channels;
  const RowChunks chunks(args.rows, C);
  const T *dy = static_cast<const T*>(args.dy), *x = static_cast<const T*>(args.x);
  const T *gamma = static_cast<const T*>(args.gamma), *rstd = static_cast<const T*>(args.rstd);
  T *dx = static_cast<T*>(args.dx), *dgamma = static_cast<T*>(args.dgamma), *dbeta = static_cast<T*>(args.dbeta);

  const Workspace coefficients = workspace_of<T>(4 * chunks.wide);
  T *mean = coefficients.as<T>(), *a = mean + chunks.wide, *b = a + chunks.wide, *shift = b + chunks.wide;
  for (int64_t c = 0; c < C; ++c) mean[c] = static_cast<const T*>(args.mean)[c];
  chunks.repeat(mean);

  const Workspace sums = workspace_of<double>(2 * C + chunks.tasks() * 2 * chunks.wide);
  double *sum_dy = sums.as<double>(), *sum_dyx = sum_dy + C;
  batch_sums(dy, x, mean, chunks, sum_dyx + C, sum_dy, sum_dyx);

  const double rows = static_cast<double>(args.rows);
  for (int64_t c = 0; c < C; ++c) {
    const double r = static_cast<double>(rstd[c]), scale = static_cast<double>(gamma[c]) * r;
    dbeta[c] = static_cast<T>(sum_dy[c]);
    dgamma[c] = static_cast<T>(sum_dyx[c] * r);
    a[c] = static_cast<T>(scale);
    b[c] = static_cast<T>(-scale * r * r * sum_dyx[c] / rows);
    shift[c] = static_cast<T>(-scale * sum_dy[c] / rows);
  }
  chunks.repeat(a);
  chunks.repeat(b);
  chunks.repeat(shift);
  parallel_for(chunks.tasks(), [&](int64_t i) {
    chunks.run(i, [&](int64_t first, int64_t n, int64_t cols) {
      if (args.training) {
        input_gradient(dy + first, x + first, dx + first, n, cols, mean, a, b, shift);
      } else {
        scale_columns(dy + first, dx + first, n, cols, a);
      }
    });
  });
}

void fwd(const BatchNorm2dFwdArgs& a) {
  with_dtype(a.dtype, [&]<class T>(T) { fwd_of<T>(a); });
}

void bwd(const BatchNorm2dBwdArgs& a) {
  with_dtype(a.dtype, [&]<class T>(T) { bwd_of<T>(a); });
}

const Register kFwd{batch_norm2d_fwd, kIsa, fwd};
const Register kBwd{batch_norm2d_bwd, kIsa, bwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
