// batch_norm2d_relu_max_pool2d: batch_norm2d, ReLU and max pooling (stride = size, no padding) in one pass
//   fwd: z as batch_norm2d's y; y[n,p,q,c] = max(0, max over the window of z), argmax = r * pool_w + s of the first
//        maximum in scan order; the first NaN wins; kDead where the largest z is <= 0
//   bwd: batch_norm2d's, with the gradient of z: dy at the place that argmax names, else 0
// Layout NHWC; argmax, y and dy (N, H / pool_h, W / pool_w, C). z is never written, nor its gradient.
// Work: bands, of one row of windows or what is left below them; where a window is one pixel, of some pixels. The sums
// of the backward are those of pieces of the bands, fixed by the shape, merged in their order.
// Numerics: statistics as batch_norm2d. Sums of 16 windows in T, these in double. Both overwrite.
// Source: S. Ioffe, C. Szegedy, "Batch Normalization", 2015.
#include "core/dispatch.hpp"
#include "cpu/batch_norm2d.hpp"
#include "cpu/pool_tile.hpp"
#include "cpu/windows.hpp"

namespace stapes::cpu::STAPES_ISA_NAME {
namespace {

// A row of windows: first elements of x and y, rows and pixels of x (the windows may leave some at the right), windows.
struct Strip {
  Index x, y, rows, cols, windows;
};

class Strips {
 public:
  explicit Strips(const PooledMap& m) : m_(m) {
    if (m.pool_h * m.pool_w != 1) return;
    m_.W = clamp(kGrain / 8 / m.C, 8, kGrain);  // one row of all pixels, cut anew
    pixels_ = m.N * m.H * m.W;
  }

  Index count() const { return pixels_ > 0 ? ceil_div(pixels_, m_.W) : m_.N * ceil_div(m_.H, m_.pool_h); }

  Strip operator[](Index i) const {
    if (pixels_ > 0) {
      const Index first = i * m_.W, n = least(m_.W, pixels_ - first);
      return {first * m_.C, first * m_.C, 1, n, n};
    }
    const Index down = ceil_div(m_.H, m_.pool_h), n = i / down, p = i % down, P = m_.H / m_.pool_h,
                Q = m_.W / m_.pool_w, h = p * m_.pool_h;
    return {(n * m_.H + h) * row(), (n * P + p) * Q * m_.C, least(m_.pool_h, m_.H - h), m_.W, p < P ? Q : 0};
  }

  Index row() const { return m_.W * m_.C; }
  Index elements() const { return m_.pool_h * row(); }  // of x, in a strip

 private:
  PooledMap m_;
  Index pixels_ = 0;
};

// Sizes of a window that are known to the compiler where h, w > 0.
template <int h, int w>
struct Window {
  Index rows, cols;
  [[gnu::always_inline]] Index height() const { return h > 0 ? h : rows; }
  [[gnu::always_inline]] Index width() const { return w > 0 ? w : cols; }
};

template <class F>
void with_window(const PooledMap& m, const F& f) {
  if (m.pool_h == 1 && m.pool_w == 1) return f(Window<1, 1>{1, 1});
  if (m.pool_h == 2 && m.pool_w == 2) return f(Window<2, 2>{2, 2});
  f(Window<0, 0>{m.pool_h, m.pool_w});
}

template <class T, class V>
[[gnu::always_inline]] inline void store_place(std::uint8_t* to, Lanes<V> place) {
  if constexpr (sizeof(V) == sizeof(T)) {
    *to = static_cast<std::uint8_t>(place);
  } else {
    store_bytes<T>(to, place, kLanes<T>);
  }
}

template <class T, class W>
void forward_strip(Strip strip, W window, Index row, Index C, const T* x, Normalisation<T> n, T* y,
                   std::uint8_t* argmax) {
  x += strip.x, y += strip.y, argmax += strip.y;
  for (Index q = 0; q < strip.windows; ++q, x += window.width() * C, y += C, argmax += C) {
    for_channels<T>(C, [&]<class V>(V, Index c) {
      const V center = load_as<V>(n.center + c), scale = load_as<V>(n.scale + c), shift = load_as<V>(n.shift + c);
      V best = (load_as<V>(x + c) - center) * scale + shift;
      Lanes<V> place{};
      for (Index i = 0; i < window.height(); ++i) {
        for (Index j = i == 0 ? 1 : 0; j < window.width(); ++j) {
          const V z = (load_as<V>(x + i * row + j * C + c) - center) * scale + shift;
          const auto stays = z <= best;
          const auto take = (stays == 0) & (best == best);  // larger, or the first NaN
          best = take ? z : best;
          place = take ? index_splat<Lanes<V>>(i * window.width() + j) : place;
        }
      }
      const auto dead = best <= V{};
      store_as(y + c, dead ? V{} : best);
      store_place<T, V>(argmax + c, dead ? index_splat<Lanes<V>>(kDead) : place);
    });
  }
}

template <class T>
void fwd_of(const BatchNorm2dReluMaxPool2dFwdArgs& a) {
  const RowChunks chunks(a.norm.rows, a.norm.channels);
  const Workspace coefficients = workspace_of<T>(3 * chunks.wide);
  T* center = coefficients.as<T>();
  const Normalisation<T> n{center, center + chunks.wide, center + 2 * chunks.wide};
  prepare(a.norm, chunks, n);

  const Strips strips(a.map);
  const Index count = strips.count();
  with_window(a.map, [&](auto window) {
    parallel_ranges(count, rows_per_task(strips.elements()), [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        forward_strip(strips[i], window, strips.row(), a.map.C, static_cast<const T*>(a.norm.x), n,
                      static_cast<T*>(a.norm.y), a.argmax);
      }
    });
  });
}

constexpr Index kSummed = 16;  // windows, in T

// Adds a strip's dy, and dy * (x - mean) at the places named, to two sums for each channel; `some` holds two more.
template <class T, class W>
void add_strip(Strip strip, W window, Index row, Index C, const T* dy, const std::uint8_t* argmax, const T* x,
               const T* mean, T* some, double* sums) {
  const Index across = window.width() * C;
  for (Index first = 0; first < strip.windows; first += kSummed) {
    const Index n = least(kSummed, strip.windows - first);
    const T *from = x + strip.x + first * across, *gradient = dy + strip.y + first * C;
    const std::uint8_t* places = argmax + strip.y + first * C;
    for_channels<T>(C, [&]<class V>(V, Index c) {
      const V center = load_as<V>(mean + c);
      V sum{}, product{};
      for (Index q = 0; q < n; ++q) {
        const T *at = from + q * across + c, *g_at = gradient + q * C + c;
        __builtin_prefetch(g_at + kSummed * C);
        V named{}, g{};
        for (Index i = 0; i < window.height(); ++i) {
          for (Index j = 0; j < window.width(); ++j) {
            const T* here = at + i * row + j * C;
            __builtin_prefetch(here + kSummed * across);
            const auto is = is_place<V>(places + q * C + c, i * window.width() + j, dy);
            g = is ? load_as<V>(g_at) : g;
            named = is ? load_as<V>(here) - center : named;
          }
        }
        sum += g;
        product += g * named;
      }
      store_as(some + c, sum);
      store_as(some + C + c, product);
    });
    for (Index c = 0; c < 2 * C; ++c) sums[c] += static_cast<double>(some[c]);
  }
}

bool valid_strip(const Strip& strip, Index places, Index C, const std::uint8_t* argmax) {
  using Byte = std::uint8_t;
  const Byte most = static_cast<Byte>(places - 1), dead = static_cast<Byte>(kDead);
  Byte wrong = 0;  // bytes all through, so that a vector holds many
  argmax += strip.y;
  for (Index i = 0; i < strip.windows * C; ++i) {
    wrong |= static_cast<Byte>(static_cast<Byte>(argmax[i] > most) & static_cast<Byte>(argmax[i] != dead));
  }
  return wrong == 0;
}

template <bool kTraining, class T, class W>
void backward_strip(Strip strip, W window, Index row, Index C, const T* dy, const std::uint8_t* argmax, const T* x,
                    InputGradient<T> g, T* dx) {
  dy += strip.y, argmax += strip.y;
  const auto put = [=]<class V>(V gradient, Index at, Index c) {
    V sum = load_as<V>(g.scale + c) * gradient;
    if constexpr (kTraining) {
      const V distance = load_as<V>(x + at) - load_as<V>(g.mean + c);
      sum += load_as<V>(g.slope + c) * distance + load_as<V>(g.shift + c);
    }
    store_as(dx + at, sum);
  };
  for (Index i = 0; i < strip.rows; ++i) {
    Index at = strip.x + i * row;
    const Index end = at + strip.cols * C;
    for (Index q = 0; q < strip.windows * C; q += C) {
      for (Index j = 0; j < window.width(); ++j, at += C) {
        const Index place = i * window.width() + j;
        for_channels<T>(C, [&]<class V>(V, Index c) {
          put(is_place<V>(argmax + q + c, place, dy) ? load_as<V>(dy + q + c) : V{}, at + c, c);
        });
      }
    }
    for (; at < end; at += C) for_channels<T>(C, [&]<class V>(V, Index c) { put(V{}, at + c, c); });
  }
}

// Per channel, the sums of dy and of dy * (x - mean) over all windows; false where argmax names no place.
template <class T>
bool sum_up(const BatchNorm2dReluMaxPool2dBwdArgs& a, const Strips& strips, double* sums) {
  const Index C = a.map.C, count = strips.count(), grain = rows_per_task(strips.elements());
  const Index pieces = ceil_div(count, grain);
  const Workspace partial = workspace_of<double>(pieces * 2 * C), scratch = workspace_of<T>(pieces * 2 * C);
  bool valid = true;
  with_window(a.map, [&](auto window) {
    parallel_for(pieces, [&](Index piece) {
      double* mine = partial.as<double>() + piece * 2 * C;
      for (Index c = 0; c < 2 * C; ++c) mine[c] = 0;
      const Range range = part(count, pieces, piece);
      for (Index i = range.begin; i < range.end; ++i) {
        const Strip strip = strips[i];
        if (!valid_strip(strip, a.map.pool_h * a.map.pool_w, C, a.argmax)) {
          __atomic_store_n(&valid, false, __ATOMIC_RELAXED);
        }
        add_strip(strip, window, strips.row(), C, static_cast<const T*>(a.norm.dy), a.argmax,
                  static_cast<const T*>(a.norm.x), static_cast<const T*>(a.norm.mean), scratch.as<T>() + piece * 2 * C,
                  mine);
      }
    });
  });
  for (Index c = 0; c < 2 * C; ++c) sums[c] = 0;
  for (Index i = 0; i < pieces * 2 * C; ++i) sums[i % (2 * C)] += partial.as<double>()[i];
  return valid;
}

template <class T>
void bwd_of(const BatchNorm2dReluMaxPool2dBwdArgs& a) {
  const Index C = a.map.C;
  const Strips strips(a.map);
  const Workspace sums = workspace_of<double>(2 * C), coefficients = workspace_of<T>(4 * C);
  *a.argmax_valid = sum_up<T>(a, strips, sums.as<double>());
  if (!*a.argmax_valid) return;
  T* mean = coefficients.as<T>();
  const InputGradient<T> g{mean, mean + C, mean + 2 * C, mean + 3 * C};
  for (Index c = 0; c < C; ++c) mean[c] = static_cast<const T*>(a.norm.mean)[c];
  finish(a.norm, sums.as<double>(), sums.as<double>() + C, g);

  const Index count = strips.count();
  const auto* dy = static_cast<const T*>(a.norm.dy);
  const auto* x = static_cast<const T*>(a.norm.x);
  T* dx = static_cast<T*>(a.norm.dx);
  with_window(a.map, [&](auto window) {
    parallel_ranges(count, rows_per_task(strips.elements()), [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        const Strip strip = strips[i];
        if (a.norm.training) {
          backward_strip<true>(strip, window, strips.row(), C, dy, a.argmax, x, g, dx);
        } else {
          backward_strip<false>(strip, window, strips.row(), C, dy, a.argmax, x, g, dx);
        }
      }
    });
  });
}

void fwd(const BatchNorm2dReluMaxPool2dFwdArgs& a) {
  with_dtype(a.norm.dtype, [&]<class T>(T) { fwd_of<T>(a); });
}

void bwd(const BatchNorm2dReluMaxPool2dBwdArgs& a) {
  with_dtype(a.norm.dtype, [&]<class T>(T) { bwd_of<T>(a); });
}

const Register kFwd{batch_norm2d_relu_max_pool2d_fwd, kIsa, fwd};
const Register kBwd{batch_norm2d_relu_max_pool2d_bwd, kIsa, bwd};

}  // namespace
}  // namespace stapes::cpu::STAPES_ISA_NAME
