"""Named shapes, each for a path or an edge of some kernel. `stapes bench` has those of networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stapes.bench.shapes import ConvCase


@dataclass(frozen=True)
class FusedCase(ConvCase):
    """Convolution, ReLU and max pooling in one."""

    pool: Any = 2

    @property
    def fused_options(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "pool": self.pool}


@dataclass(frozen=True)
class TransposeCase:
    """A transposed convolution: x is (N, H, W, C_in), w is (C_in, R, S, C_out)."""

    name: str
    x: tuple[int, int, int, int]
    w: tuple[int, int, int, int]
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class PoolCase:
    """A pooling over x (N, H, W, C)."""

    name: str
    x: tuple[int, int, int, int]
    kernel: Any
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


# Channel counts beside the multiples that register tiles and vectors like.
TAILS = (1, 3, 5, 7, 17, 33)

CONV_CASES = (
    ConvCase("first_c1", (2, 12, 10, 1), (32, 3, 3, 1), padding="same"),
    ConvCase("first_c1_5x5_stride2", (2, 13, 12, 1), (16, 5, 5, 1), stride=2, padding=2),
    ConvCase("first_c1_k68", (3, 13, 11, 1), (68, 3, 3, 1), padding=1),
    ConvCase("first_c1_dilated", (2, 12, 15, 1), (20, 3, 3, 1), 2, 3, 2),
    ConvCase("first_c3", (2, 9, 8, 3), (16, 3, 3, 3), padding=1),
    ConvCase("first_c3_7x7_stride2", (1, 15, 16, 3), (8, 7, 7, 3), stride=2, padding=3),
    ConvCase("1x1", (3, 5, 7, 8), (16, 1, 1, 8)),
    ConvCase("1x1_stride2", (2, 5, 6, 16), (24, 1, 1, 16), stride=2),
    ConvCase("1x1_padded", (2, 3, 4, 4), (8, 1, 1, 4), padding=1),
    ConvCase("3x3_valid", (2, 7, 8, 16), (16, 3, 3, 16), padding="valid"),
    ConvCase("3x3_same", (2, 8, 8, 16), (32, 3, 3, 16), padding="same"),
    # For Winograd, whose tiles are 2 x 2 outputs: sizes that these do not fill, several bands.
    ConvCase("winograd_odd", (5, 7, 9, 32), (40, 3, 3, 32), padding=1),
    ConvCase("winograd_valid", (2, 20, 11, 40), (33, 3, 3, 40)),
    ConvCase("winograd_bands", (1, 21, 37, 32), (34, 3, 3, 32), padding=((0, 4), (3, 1))),
    ConvCase("winograd_pad_gt_kernel", (2, 9, 8, 32), (48, 3, 3, 32), padding=4),
    ConvCase("winograd_wgrad_one_pixel", (2, 1, 1, 32), (48, 3, 3, 32), padding="same"),
    ConvCase("3x3_same_one_pixel", (2, 1, 1, 8), (8, 3, 3, 8), padding="same"),
    ConvCase("3x3_stride2_tail", (2, 9, 11, 5), (7, 3, 3, 5), stride=2, padding=1),
    ConvCase("3x3_same_stride2_even", (2, 8, 10, 8), (8, 3, 3, 8), stride=2, padding="same"),
    ConvCase("3x3_same_stride3", (2, 8, 7, 4), (8, 3, 3, 4), stride=3, padding="same"),
    # For the weight gradient from gathered rows: 256 outputs or more, K from 48 on.
    ConvCase("gathered_stride_2x1", (2, 15, 17, 19), (49, 3, 3, 19), stride=(2, 1), padding=1),
    ConvCase("gathered_dilated", (1, 27, 19, 17), (48, 3, 3, 17), (2, 1), 2, 2),
    ConvCase("gathered_5x5_stride2", (1, 33, 31, 16), (50, 5, 5, 16), stride=2, padding=2),
    ConvCase("2x2_same", (2, 5, 4, 8), (8, 2, 2, 8), padding="same"),
    ConvCase("2x4_stride_1x3", (2, 6, 11, 4), (8, 2, 4, 4), stride=(1, 3)),
    ConvCase("stride_gt_kernel", (2, 11, 10, 4), (8, 2, 2, 4), stride=4),
    ConvCase("pad_gt_kernel", (2, 5, 4, 4), (8, 3, 3, 4), padding=5),
    ConvCase("pad_gt_kernel_stride2", (1, 4, 5, 3), (5, 2, 3, 3), stride=2, padding=(4, 6)),
    ConvCase("asymmetric_pad", (2, 7, 6, 4), (8, 3, 3, 4), padding=((0, 2), (3, 1))),
    ConvCase("asymmetric_pad_stride2", (2, 8, 5, 4), (8, 3, 3, 4), 2, ((2, 0), (0, 3))),
    ConvCase("dilated", (2, 9, 8, 8), (16, 3, 3, 8), padding=2, dilation=2),
    ConvCase("dilated_uneven", (2, 11, 9, 4), (8, 3, 2, 4), padding="same", dilation=(3, 2)),
    ConvCase("dilated_stride2", (2, 12, 11, 4), (8, 3, 3, 4), 2, 3, 3),
    ConvCase("dilation_beyond_map", (2, 5, 6, 4), (8, 3, 3, 4), padding=7, dilation=7),
    ConvCase("dilated_far", (1, 700, 1, 40), (3, 2, 1, 40), 1, ((256, 0), (0, 0)), (256, 1)),
    ConvCase("dilated_far_row", (1, 2, 400, 33), (3, 2, 2, 33), 1, "same", (1, 300)),
    ConvCase("dilated_far_stride3", (1, 1, 1500, 17), (3, 1, 2, 17), 3, "same", (1, 700)),
    ConvCase("dilated_far_depthwise", (1, 500, 2, 36), (36, 3, 1, 1), 1, "same", (200, 1), 36),
    ConvCase("stride_far", (2, 40, 45, 3), (5, 2, 2, 3), stride=(11, 13), padding=1),
    ConvCase("stride_far_depthwise", (2, 30, 31, 9), (9, 2, 1, 1), 12, "same", 1, 9),
    ConvCase("stride_far_grouped", (2, 30, 1, 9), (6, 2, 1, 3), (9, 1), ((3, 2), (0, 0)), 1, 3),
    ConvCase("grouped", (2, 6, 7, 16), (24, 3, 3, 4), padding=1, groups=4),
    ConvCase("grouped_odd", (2, 5, 6, 9), (15, 3, 3, 3), padding=1, groups=3),
    ConvCase("grouped_dilated_stride2", (2, 9, 9, 8), (8, 3, 3, 4), 2, "same", 2, 2),
    ConvCase("depthwise", (2, 7, 8, 16), (16, 3, 3, 1), padding=1, groups=16),
    ConvCase("depthwise_two_tiles", (1, 3, 9, 132), (132, 3, 3, 1), padding="same", groups=132),
    ConvCase("depthwise_many_pixels", (3, 31, 50, 4), (4, 3, 3, 1), padding=1, groups=4),
    ConvCase("depthwise_4x4", (2, 7, 9, 8), (8, 4, 4, 1), padding="same", groups=8),
    ConvCase("depthwise_stride2", (2, 9, 8, 16), (16, 3, 3, 1), 2, "same", 1, 16),
    ConvCase("depthwise_wide", (1, 4, 23, 37), (37, 3, 3, 1), padding=1, groups=37),
    ConvCase("depthwise_stride2_wide", (1, 5, 31, 18), (18, 3, 3, 1), 2, "same", 1, 18),
    ConvCase("depthwise_3x2_wide", (1, 4, 22, 5), (5, 3, 2, 1), padding=1, groups=5),
    ConvCase("depthwise_odd", (2, 5, 7, 17), (17, 3, 3, 1), padding=1, groups=17),
    ConvCase("depthwise_multiplier", (2, 6, 5, 5), (10, 3, 3, 1), padding=1, groups=5),
    ConvCase("depthwise_5x5_dilated", (1, 9, 10, 8), (8, 5, 5, 1), 1, "same", 2, 8),
    # Outputs of a row that read nothing, and then ones that do.
    ConvCase("depthwise_1x1_padded", (2, 4, 5, 12), (12, 1, 1, 1), padding=1, groups=12),
    ConvCase("depthwise_3x1_padded", (2, 4, 5, 16), (16, 3, 1, 1), padding=1, groups=16),
    ConvCase("depthwise_pad_gt_kernel", (2, 5, 6, 16), (16, 3, 3, 1), padding=4, groups=16),
    ConvCase("depthwise_stride2_dilated3", (2, 9, 12, 8), (8, 2, 2, 1), (1, 2), 0, (1, 3), 8),
    ConvCase("depthwise_narrow", (2, 6, 2, 20), (20, 2, 3, 1), (3, 1), ((0, 1), (1, 2)), 1, 20),
    ConvCase("kernel_is_map", (3, 5, 4, 8), (16, 5, 4, 8)),
    ConvCase("kernel_larger_than_map", (2, 2, 3, 4), (5, 5, 7, 4), padding=((2, 2), (3, 3))),
    ConvCase("1d_1x80_stride4", (2, 1, 400, 1), (8, 1, 80, 1), stride=(1, 4)),
    ConvCase("1d_1x3", (2, 1, 21, 16), (16, 1, 3, 16), padding="same"),
    ConvCase("column_3x1", (2, 13, 1, 6), (10, 3, 1, 6), padding="same"),
    ConvCase("deep", (1, 5, 5, 300), (20, 3, 3, 300), padding=1),
    ConvCase("wide_output", (1, 4, 5, 8), (200, 3, 3, 8), padding=1),
    ConvCase("many_images", (37, 3, 3, 4), (8, 3, 3, 4), padding=1),
    ConvCase("empty_batch", (0, 6, 5, 4), (8, 3, 3, 4), padding=1),
    ConvCase("empty_batch_first", (0, 6, 5, 3), (8, 3, 3, 3), padding=1),
    ConvCase("empty_batch_depthwise", (0, 6, 5, 8), (8, 3, 3, 1), padding=1, groups=8),
    *(
        ConvCase(f"tail_c{c}_k{k}", (2, 5, 6, c), (k, 3, 3, c), padding=1)
        for c in TAILS
        for k in TAILS
    ),
    *(ConvCase(f"tail_w{w}", (2, 3, w, 8), (8, 3, 3, 8), padding=1) for w in TAILS),
)

# Sizes around those of the tiles of CUDA's implicit GEMMs: 32, 64 and 128 pixels or channels, 16
# or 32 numbers of depth, pieces of 4 or 8 channels. On the emulator 3 blocks suffice for any tile.
_EDGES = (1, 7, 8, 9, 16, 24, 31, 33, 63, 64, 65)
TILE_CASES = (
    *(ConvCase(f"pixels{m}", (1, 1, m, 8), (16, 1, 1, 8)) for m in (63, 64, 65, 127, 128, 129)),
    *(ConvCase(f"k{k}", (1, 3, 4, 8), (k, 2, 1, 8)) for k in _EDGES),
    *(ConvCase(f"c{c}", (1, 3, 4, c), (8, 2, 1, c)) for c in _EDGES),
    ConvCase("wide_k", (1, 17, 16, 8), (72, 3, 3, 8), padding=1),
    ConvCase("wide_c", (1, 17, 16, 72), (8, 3, 3, 72), padding=1),
    ConvCase("wide_k136", (3, 1, 131, 16), (136, 1, 2, 16)),
    ConvCase("tall", (1, 19, 15, 40), (40, 2, 2, 40), padding=1),
    ConvCase("narrow", (2, 14, 13, 24), (24, 3, 1, 24), padding=1),
    ConvCase("narrow_stride2", (1, 37, 31, 24), (40, 3, 3, 24), stride=2, padding=1),
    ConvCase("tall_stride_3x2", (1, 40, 31, 40), (24, 4, 3, 40), (3, 2), ((1, 2), (0, 1))),
    ConvCase("dilated_stride_4x6", (1, 25, 27, 8), (16, 3, 4, 8), (4, 6), 8, (2, 4)),
    ConvCase("grouped_pieces", (2, 9, 16, 48), (72, 3, 3, 16), padding=1, groups=3),
    # As many channels out of a group as into it, and few: the weight gradient's own kernel.
    ConvCase("narrow_8", (2, 9, 8, 32), (32, 3, 3, 8), padding=1, groups=4),
    ConvCase("narrow_4", (2, 9, 8, 32), (32, 3, 3, 4), padding=1, groups=8),
    ConvCase("narrow_pieces", (9, 130, 3, 16), (16, 3, 3, 4), padding=1, groups=4),
    ConvCase("narrow_few_rows", (1, 3, 40, 16), (16, 1, 3, 8), groups=2),
    ConvCase("narrow_2", (3, 5, 4, 16), (16, 3, 3, 2), padding=(2, 0), groups=8),
    ConvCase("narrow_pixel", (16, 1, 1, 16), (16, 3, 3, 4), padding=1, groups=4),
    ConvCase("narrow_pad_gt_kernel", (2, 4, 5, 16), (16, 3, 2, 4), padding=4, groups=4),
    ConvCase("narrow_left", (2, 12, 5, 16), (16, 2, 3, 4), padding=((0, 1), (2, 0)), groups=4),
    ConvCase("narrow_right", (2, 12, 5, 16), (16, 2, 3, 8), padding=((1, 0), (0, 2)), groups=2),
    ConvCase("narrow_rows", (3, 19, 6, 32), (32, 5, 1, 8), (3, 1), (2, 1), (2, 1), groups=4),
    ConvCase("narrow_stride2", (4, 9, 8, 32), (32, 3, 3, 8), stride=2, padding=1, groups=4),
    ConvCase("narrow_dilated", (2, 9, 8, 32), (32, 3, 3, 8), 1, 2, 2, groups=4),
    ConvCase("grouped_odd_k", (2, 9, 8, 32), (22, 2, 2, 16), groups=2),
    ConvCase("grouped_stride2", (2, 9, 8, 32), (48, 3, 3, 16), stride=2, padding=1, groups=2),
    ConvCase("many_splits", (9, 12, 13, 8), (8, 1, 2, 8)),
    # Few pixels and channels, long sums: CUDA's forward splits them.
    ConvCase("split_depth", (2, 4, 4, 64), (40, 3, 3, 64), padding=1),
    ConvCase("split_depth_grouped", (1, 3, 4, 128), (24, 3, 3, 64), padding=1, groups=2),
    ConvCase("split_depth_elements", (1, 3, 3, 67), (5, 3, 3, 67)),
    # More than the emulator has in one launch.
    ConvCase("1x1_two_launches", (3, 10, 20, 8), (8, 1, 1, 8)),
    ConvCase("two_launches_stride2", (5, 20, 21, 8), (8, 2, 2, 8), stride=2),
)

FUSED_CASES = (
    FusedCase("first_c1", (2, 12, 10, 1), (32, 3, 3, 1), padding="same"),
    FusedCase("first_c3", (2, 8, 8, 3), (16, 3, 3, 3), padding=1),
    FusedCase("conv2", (2, 16, 16, 32), (64, 3, 3, 32), padding=1),
    FusedCase("wide_odd", (2, 13, 13, 72), (80, 3, 3, 72), padding=1),
    FusedCase("wide_1x2", (3, 3, 41, 8), (72, 1, 3, 8), padding=(0, 1), pool=(1, 2)),
    FusedCase("narrow_2x1", (2, 9, 15, 16), (40, 3, 3, 16), padding=1, pool=(2, 1)),
    FusedCase("first_c1_k33", (3, 11, 7, 1), (33, 3, 3, 1), padding=1),
    FusedCase("first_c1_1d", (2, 1, 67, 1), (12, 1, 9, 1), padding="same", pool=(1, 2)),
    FusedCase("first_c3_many_windows", (5, 17, 15, 3), (8, 3, 3, 3), padding="same"),
    FusedCase("first_c1_valid", (2, 9, 8, 1), (40, 3, 3, 1)),
    FusedCase("first_c3_bands", (1, 40, 39, 3), (20, 3, 3, 3), padding=((0, 2), (1, 0))),
    FusedCase("first_c1_bands", (1, 70, 39, 1), (9, 3, 3, 1), padding=((2, 1), (0, 3))),
    FusedCase("first_c3_stride_far", (1, 40, 33, 3), (9, 2, 2, 3), (9, 16), ((1, 0), (0, 1))),
    FusedCase("leftover_row_and_column", (2, 9, 7, 8), (16, 3, 3, 8), padding=1),
    FusedCase("leftover_only", (2, 2, 3, 4), (8, 3, 3, 4), padding=1),
    FusedCase("valid", (2, 8, 9, 4), (8, 3, 3, 4)),
    FusedCase("1x1", (2, 6, 6, 8), (8, 1, 1, 8)),
    FusedCase("5x5", (2, 8, 8, 4), (8, 5, 5, 4), padding=2),
    FusedCase("stride2", (2, 13, 12, 4), (8, 3, 3, 4), stride=2, padding=1),
    FusedCase("asymmetric_pad", (2, 7, 6, 4), (8, 3, 3, 4), padding=((0, 2), (3, 1))),
    FusedCase("pad_gt_kernel", (1, 4, 4, 3), (5, 3, 3, 3), padding=4),
    FusedCase("pool3", (2, 10, 9, 4), (8, 3, 3, 4), padding=1, pool=3),
    FusedCase("pool_1x4", (2, 4, 17, 4), (8, 3, 3, 4), padding=1, pool=(1, 4)),
    FusedCase("pool_4x1", (2, 9, 3, 3), (8, 3, 3, 3), padding=1, pool=(4, 1)),
    FusedCase("pool1", (2, 3, 4, 4), (8, 3, 3, 4), padding=1, pool=1),
    FusedCase("pool_15x17", (1, 16, 18, 2), (3, 3, 3, 2), padding=1, pool=(15, 17)),
    FusedCase("stride_far", (2, 60, 45, 3), (5, 2, 2, 3), stride=(11, 13), padding=1, pool=(3, 2)),
    FusedCase(
        "two_launches", (5, 12, 13, 8), (8, 3, 3, 8), padding=1
    ),  # the emulator's have 512 pixels
    FusedCase("1d_1x80_stride4", (2, 1, 400, 1), (8, 1, 80, 1), stride=(1, 4), pool=(1, 4)),
    # For kernels that go over the pooled gradient: several words of 64 k, strides, bands of rows.
    FusedCase("k130", (1, 6, 5, 16), (130, 3, 3, 16), padding=1),
    FusedCase("strides_and_pool_2x3", (2, 17, 19, 16), (24, 3, 3, 16), (2, 3), 1, pool=(2, 3)),
    FusedCase("tall_one_image", (1, 41, 6, 16), (8, 3, 3, 16), padding=2),
    FusedCase("empty_batch", (0, 6, 6, 4), (8, 3, 3, 4), padding=1),
    *(
        FusedCase(f"tail_c{c}_k{k}", (2, 5, 6, c), (k, 3, 3, c), padding=1)
        for c, k in zip((*TAILS, 8, 3), (*TAILS[::-1], 17, 3), strict=True)
    ),
)

TRANSPOSE_CASES = (
    TransposeCase("1x1", (2, 3, 4, 8), (8, 1, 1, 16)),
    TransposeCase("3x3", (2, 4, 5, 8), (8, 3, 3, 4)),
    TransposeCase("3x3_pad1", (2, 4, 5, 8), (8, 3, 3, 4), {"padding": 1}),
    TransposeCase("2x2_stride2", (2, 4, 3, 8), (8, 2, 2, 16), {"stride": 2}),
    TransposeCase(
        "3x3_stride2_out1",
        (2, 4, 5, 6),
        (6, 3, 3, 7),
        {"stride": 2, "padding": 1, "output_padding": 1},
    ),
    TransposeCase(
        "4x3_stride_3x2",
        (2, 3, 5, 5),
        (5, 4, 3, 3),
        {"stride": (3, 2), "padding": (1, 0), "output_padding": (2, 1)},
    ),
    TransposeCase("asymmetric_pad", (2, 4, 4, 4), (4, 3, 3, 8), {"padding": ((0, 1), (2, 1))}),
    TransposeCase("stride_gt_kernel", (2, 3, 3, 4), (4, 2, 2, 4), {"stride": 3}),
    TransposeCase("same", (2, 4, 5, 8), (8, 3, 3, 4), {"padding": "same"}),
    TransposeCase("same_stride2", (2, 4, 5, 8), (8, 3, 3, 4), {"stride": 2, "padding": "same"}),
    TransposeCase("same_5x4", (2, 3, 4, 3), (3, 5, 4, 6), {"stride": (2, 3), "padding": "same"}),
    TransposeCase("same_2x2_stride4", (1, 3, 4, 3), (3, 2, 2, 6), {"stride": 4, "padding": "same"}),
    TransposeCase("one_channel", (2, 4, 4, 17), (17, 3, 3, 1), {"padding": 1}),
    TransposeCase("empty_batch", (0, 4, 4, 4), (4, 3, 3, 8), {"padding": 1}),
)

POOL_CASES = (
    PoolCase("2x2", (2, 8, 6, 16), 2),
    PoolCase("2x2_leftover", (2, 7, 5, 8), 2),
    PoolCase("3x3_stride2_pad1", (2, 9, 8, 8), 3, {"stride": 2, "padding": 1}),
    PoolCase("3x3_stride1_same", (2, 5, 6, 4), 3, {"stride": 1, "padding": "same"}),
    PoolCase("4x4_stride3_same", (2, 8, 7, 4), 4, {"stride": 3, "padding": "same"}),
    PoolCase("stride_gt_kernel", (2, 9, 10, 4), 2, {"stride": 3}),
    PoolCase("uneven", (2, 7, 9, 4), (3, 2), {"stride": (1, 2), "padding": (1, 0)}),
    PoolCase("asymmetric_pad", (2, 6, 5, 4), 3, {"stride": 2, "padding": ((0, 1), (1, 0))}),
    PoolCase("1x1", (2, 3, 4, 4), 1),
    PoolCase("1d", (2, 1, 23, 8), (1, 4)),
    PoolCase("kernel_is_map", (2, 5, 7, 4), (5, 7)),
    PoolCase("15x17_in_uint8", (1, 17, 18, 2), (15, 17), {"stride": 1}),
    PoolCase("16x16_in_int32", (1, 17, 18, 2), 16, {"stride": 1}),
    PoolCase("kernel_larger_than_map", (2, 2, 1, 4), 3, {"stride": 1, "padding": 1}),
    PoolCase("empty_batch", (0, 6, 6, 4), 2),
    *(PoolCase(f"tail_c{c}", (2, 5, 6, c), 2) for c in TAILS),
)
