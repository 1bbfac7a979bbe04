// The statistics of batch normalisation, and what follows from them for each channel: for batch_norm2d.cpp, and the
// operators that begin with it.
// Numerics: statistics in double. A chunk's squares are taken about its first value o: since (mean - o)^2 <= n var for
// any o among n values, the variance loses at most a factor n (about 1000) of double's precision, however large the
// mean. Chunks are merged by Chan's formula. y uses the mean as a rounded value plus what rounding left, so that a
// large mean costs float32 no digits either.
// Source: T. Chan, G. Golub, R. LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances",
// 1979.
#pragma once

#include <cmath>

#include "cpu/piece_moments.hpp"
#include "ops/kernels.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {

// mean, m2: for each column the mean and the summed squared distance from it.
template <class T>
void column_moments(const T* x, Index rows, Index cols, double* mean, double* m2) {
  for (Index c = 0; c < cols; ++c) mean[c] = m2[c] = 0;
  for_row_tiles(rows, cols, [=](Index begin, Index end, auto block) {
    constexpr int V = decltype(block)::kVectors;
    Vec<double> origin[V], sum[V], square[V];
    for (int v = 0; v < V; ++v) {
      origin[v] = block.get(x, v);
      sum[v] = block.get(mean, v);
      square[v] = block.get(m2, v);
    }
    for (Index r = begin; r < end; ++r) {
      block.fetch(x + (r + end - begin) * cols);
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
  for (Index c = 0; c < cols; ++c) {
    const double left = m2[c] - mean[c] * mean[c] / n;
    m2[c] = left < 0 ? 0 : left;
    mean[c] = static_cast<double>(x[c]) + mean[c] / n;
  }
}

// The mean and biased variance of every channel; scratch holds 2 * wide doubles for each task.
template <class T>
void batch_statistics(const T* x, const RowChunks& chunks, double* scratch, double* mean, double* var) {
  const Index channels = chunks.channels, wide = chunks.wide;
  parallel_for(chunks.tasks(), [&](Index i) {
    double *task_mean = scratch + i * 2 * wide, *task_m2 = task_mean + wide;
    chunks.run(i, [&](Index first, Index rows, Index cols) {
      column_moments(x + first, rows, cols, task_mean, task_m2);
      const double n = static_cast<double>(rows);
      for (Index f = 1; f * channels < cols; ++f) {
        merge_moments(n * static_cast<double>(f), task_mean, task_m2, n, task_mean + f * channels,
                      task_m2 + f * channels, channels);
      }
    });
  });
  for (Index c = 0; c < channels; ++c) mean[c] = var[c] = 0;
  double n = 0;
  for (Index i = 0; i < chunks.tasks(); ++i) {
    const double* task_mean = scratch + i * 2 * wide;
    chunks.run(i, [&](Index, Index rows, Index cols) {
      const Index positions = rows * (cols / channels);
      const double n_task = static_cast<double>(positions);
      merge_moments(n, mean, var, n_task, task_mean, task_mean + wide, channels);
      n += n_task;
    });
  }
  for (Index c = 0; c < channels; ++c) var[c] /= n;
}

template <class T>
void update_running(T& running, double batch, double momentum) {
  running = static_cast<T>((1 - momentum) * static_cast<double>(running) + momentum * batch);
}

// For each channel: y = (x - center) * scale + shift.
template <class T>
struct Normalisation {
  T *center, *scale, *shift;
};

// exact_mean and var: in training those of the batch, which move the running ones; else these take their place. Writes
// mean, rstd and the coefficients.
template <class T>
void settle(const BatchNorm2dFwdArgs& a, double* exact_mean, double* var, const Normalisation<T>& n) {
  const Index C = a.channels;
  const T *gamma = static_cast<const T*>(a.gamma), *beta = static_cast<const T*>(a.beta);
  T *mean = static_cast<T*>(a.mean), *rstd = static_cast<T*>(a.rstd);
  T *running_mean = static_cast<T*>(a.running_mean), *running_var = static_cast<T*>(a.running_var);
  if (a.training) {
    const double rows = static_cast<double>(a.rows);
    for (Index c = 0; c < C; ++c) {
      update_running(running_mean[c], exact_mean[c], a.momentum);
      update_running(running_var[c], var[c] * (rows / (rows - 1)), a.momentum);
    }
  } else {
    for (Index c = 0; c < C; ++c) {
      exact_mean[c] = static_cast<double>(running_mean[c]);
      var[c] = static_cast<double>(running_var[c]);
    }
  }
  for (Index c = 0; c < C; ++c) {
    const double exact_rstd = 1 / std::sqrt(var[c] + a.eps), exact_scale = exact_rstd * static_cast<double>(gamma[c]);
    mean[c] = n.center[c] = static_cast<T>(exact_mean[c]);
    rstd[c] = static_cast<T>(exact_rstd);
    n.scale[c] = static_cast<T>(exact_scale);
    const double left = exact_mean[c] - static_cast<double>(n.center[c]);
    n.shift[c] = static_cast<T>(static_cast<double>(beta[c]) - left * exact_scale);
  }
}

// As settle, in training with the statistics of x; `taken` are its moments, where there are any already.
template <class T>
void prepare(const BatchNorm2dFwdArgs& a, const RowChunks& chunks, const Normalisation<T>& n,
             const PieceMoments<T>* taken = nullptr) {
  const Workspace statistics = workspace_of<double>(2 * a.channels);
  double *exact_mean = statistics.as<double>(), *var = exact_mean + a.channels;
  if (a.training && taken != nullptr) {
    taken->total(exact_mean, var);
  } else if (a.training) {
    const Workspace scratch = workspace_of<double>(chunks.tasks() * 2 * chunks.wide);
    batch_statistics(static_cast<const T*>(a.x), chunks, scratch.as<double>(), exact_mean, var);
  }
  settle(a, exact_mean, var, n);
}

// For each channel: dx = scale * dy + (slope * (x - mean) + shift) in training, else dx = scale * dy.
template <class T>
struct InputGradient {
  T *mean, *scale, *slope, *shift;
};

// Writes dgamma, dbeta and the coefficients but the mean; from the sums of dy and of dy * (x - mean).
template <class T>
void finish(const BatchNorm2dBwdArgs& args, const double* sum_dy, const double* sum_dyx, const InputGradient<T>& g) {
  const T *gamma = static_cast<const T*>(args.gamma), *rstd = static_cast<const T*>(args.rstd);
  T *dgamma = static_cast<T*>(args.dgamma), *dbeta = static_cast<T*>(args.dbeta);
  const double rows = static_cast<double>(args.rows);
  for (Index c = 0; c < args.channels; ++c) {
    const double r = static_cast<double>(rstd[c]), scale = static_cast<double>(gamma[c]) * r;
    dbeta[c] = static_cast<T>(sum_dy[c]);
    dgamma[c] = static_cast<T>(sum_dyx[c] * r);
    g.scale[c] = static_cast<T>(scale);
    g.slope[c] = static_cast<T>(-scale * r * r * sum_dyx[c] / rows);
    g.shift[c] = static_cast<T>(-scale * sum_dy[c] / rows);
  }
}

}  // namespace stapes::cpu::STAPES_ISA_NAME
