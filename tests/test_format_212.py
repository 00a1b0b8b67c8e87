import numpy as np
import wfdb

from datamodules.format_212 import decode_212, encode_212


def test_format_212_is_wfdbs(tmp_path):
    digital = np.random.default_rng(0).integers(-2048, 2048, (2, 999)).astype(np.int16)
    wfdb.wrsamp(
        "r",
        fs=250,
        units=["mV"] * 2,
        sig_name=["a", "b"],
        d_signal=digital.T,
        fmt=["212"] * 2,
        adc_gain=[200.0] * 2,
        baseline=[0] * 2,
        write_dir=str(tmp_path),
    )
    raw = (tmp_path / "r.dat").read_bytes()
    assert raw == encode_212(digital)
    for lead in (0, 1):
        decoded = decode_212(np.frombuffer(raw, dtype=np.uint8), lead)
        assert decoded.dtype == np.int16
        np.testing.assert_array_equal(decoded, digital[lead])
