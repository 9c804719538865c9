"""What kernels are called, as TensorRT 8.6.0 called them on an H200, and what their names say of sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from planted import write_chain

from pytest_trt.backends.fake import FakeBackend
from pytest_trt.backends.tensorrt.kernel_names import count_half_sums, sum_type
from pytest_trt.diagnosis.present import attribution_lines
from pytest_trt.lab import Lab
from pytest_trt.settings import Settings

HALF = "sm90_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize128x128x64 0x3aaf3f2dbdf5a4a4"
FIRST = "sm90_xmma_fprop_image_first_layer_f16f16_f32_f16_nhwckrsc_nhwc_hmma_k64c4r7s7_stride2x2_tile16x64x64"
POOL = "sm50_xmma_pooling_fw_4d_FP16FP32NHWC_Average_FastDiv_CAlign4 0x56d7b61f084f251e"


@pytest.mark.parametrize(
    ("kernel", "type_"),
    [
        (HALF, "f16"),
        (FIRST, "f32"),
        ("sm80_xmma_gemm_f16f16_f16f16_f16_tn_n_tilesize128x64x64_stage3", "f16"),
        ("sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x64x64_stage3", "f32"),
        ("sm80_xmma_gemm_f32f32_f32f32_f32_nn_n_tilesize64x64x8_stage3_warpsize1x4x1_ffma", "f32"),
        ("sm90_xmma_gemm_f32f32_tf32f32_f32_nn_n_tilesize64x64x64", "f32"),
        ("sm80_xmma_fprop_wngd_f32f32_f32_f32_nchwkcrs_nchw_tilesize128x128x8", "f32"),
        ("sm80_xmma_fprop_implicit_gemm_interleaved_i8f16_i8i32_f32_nchw_vect_c_32kcrs_vect_c_32", "i32"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "f32"),
        (POOL, None),
        ("sm50_xmma_pooling_tiled_FP32NCHW_kMAX_custom_tP4_tQ32_tRS3_tUV2", None),
        ("__myl_FcAddRes_myl0_4", None),
        ("", None),
    ],
)
def test_the_type_of_the_sums(kernel: str, type_: str | None):
    assert sum_type(kernel) == type_


def test_kernels_are_counted_where_they_say_it():
    assert count_half_sums([HALF, HALF, FIRST, POOL]) == (2, 3)
    assert count_half_sums([]) == (0, 0)


@pytest.mark.parametrize(
    ("kernels", "said"),
    [
        (
            [HALF, HALF, FIRST, POOL],
            "sums are in float16 in 2 of 3 kernels whose names tell, and in float32 in the typed",
        ),
        ([FIRST, POOL], None),
        ([], None),
    ],
)
def test_an_explanation_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernels: list[str], said: str | None):
    anatomy = FakeBackend._anatomy

    def named(self: FakeBackend, *args: Any) -> dict[str, Any]:
        return {**anatomy(self, *args), "tactics": {f"layer{i}": name for i, name in enumerate(kernels)}}

    monkeypatch.setattr(FakeBackend, "_anatomy", named)
    folder = write_chain(tmp_path / "chain", 2, width=16, rows=4)
    settings = Settings(cache_dir=tmp_path / "cache", backend=("fake",), precision=("fp16",), fake="fusion=0.5,at=3")
    with Lab(settings, tmp_path) as lab:
        (case,) = lab.cases(lab.add(folder))
        lines = attribution_lines(lab.explain(case, stages=()).attribution)

    rounding = [line for line in lines if line.startswith("  rounding")]
    assert [said in line for line in rounding] == ([True] if said else [])
